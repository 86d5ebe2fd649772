"""Sample pictures of one prompt from any generator, one per seed: PNG files and a grid of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.files import digest, file_digest, write_bytes
from flywheel.core.generator import Generator, Undrawn, png
from flywheel.core.records import System
from flywheel.core.workspace import Workspace
from flywheel.generators.checkpoint import CheckpointGenerator


def promoted_checkpoint(workspace: Workspace) -> Path:
    """The incumbent's checkpoint. Errors: `UsageError` if there is none."""
    from flywheel.rounds.promotion import require_incumbent

    return workspace.path(require_incumbent(workspace).checkpoint)


def promoted_system(workspace: Workspace, *, student: bool = False) -> System:
    """The system in service, or its student. Errors: `UsageError` if there is none."""
    from flywheel.rounds import systems
    from flywheel.rounds.promotion import require_incumbent

    system = systems.read(workspace, require_incumbent(workspace).round)
    return systems.student_of(workspace, system) if student else system


def parse_size(text: str) -> tuple[int, int]:
    """`WIDTHxHEIGHT` → (height, width). Errors: `UsageError`."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text.strip().lower())
    if not match:
        raise UsageError(f"size {text}: give width and height in pixels, such as 64x64")
    return int(match[2]), int(match[1])


def sample_pictures(
    generator: Generator,
    model: str,
    prompt: str,
    *,
    output: Path,
    references: Sequence[Path] = (),
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    cfg: float | None = None,
    negative: str | None = None,
    seed: int = 0,
    count: int = 1,
) -> dict[str, Any]:
    """Write `count` pictures, of seeds `seed` … `seed + count − 1`, and a grid of them into the folder `output`.

    model: name of the generator in the answer. size: (height, width), pixels; default: the largest square that a
    checkpoint was trained at. The same generator, request and seed give the same picture, whatever the count. File
    names contain a digest of the request, so that requests do not overwrite each other. Returns the request with the
    paths of its files. Errors: `UsageError`.
    """
    _require(count, output)
    pictures = [_read(path) for path in references]

    import numpy as np

    from training.sampling import grid

    size, own = size or _own_size(generator), _own_settings(generator, steps, cfg, size)
    cfg = own.get("cfg", cfg)
    request = digest(generator.fingerprint, prompt, [file_digest(p) for p in references], size, steps, cfg)
    if negative:
        request = digest(request, negative)
    name = f"{_slug(prompt)}-{request[:8]}"
    draw = partial(generator.draw, [prompt], size=size, steps=steps, guidance=cfg)
    images, files = [], []
    for each in range(seed, seed + count):  # one by one: the batch size changes the last bits
        (image,) = draw(seeds=[each], references=[pictures], negative=negative)
        if isinstance(image, Undrawn):
            raise UsageError(f"{model} did not draw this: {image.reason}")
        files.append(output / f"{name}-seed{each}.png")
        write_bytes(files[-1], png(image))
        images.append(image)
    captions = [f"seed {each}" for each in range(seed, seed + count)]
    sheet = output / f"{name}-seed{seed}-{seed + count - 1}-grid.png"
    grid(np.stack(images), captions, sheet, columns=4, scale=max(1, 128 // max(size)))
    return {
        "prompt": prompt,
        "references": [str(path) for path in references],
        "checkpoint": model,
        "size": f"{size[1]}x{size[0]}",
        "steps": steps,
        "cfg": cfg,
        **own,
        "seeds": list(range(seed, seed + count)),
        "images": [str(path) for path in files],
        "grid": str(sheet),
    }


def _require(count: int, output: Path) -> None:
    if count < 1:
        raise UsageError(f"--count {count}: ask for at least one picture")
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {output} is a file: give a folder")


def _own_size(generator: Generator) -> tuple[int, int]:
    if not isinstance(generator, CheckpointGenerator):
        raise UsageError("give --size WIDTHxHEIGHT: only a checkpoint knows the size that it was trained at")
    return (generator.largest,) * 2


def _own_settings(
    generator: Generator, steps: int | None, cfg: float | None, size: tuple[int, int] | None
) -> dict[str, Any]:
    """Step, denoising steps and guidance of a checkpoint, which says what is not given; nothing of others."""
    if not isinstance(generator, CheckpointGenerator):
        return {}
    sampler, (height, width) = generator.sampler, size or _own_size(generator)
    times = sampler.times(steps, (height * width) // sampler.autoencoder.factor**2)
    return {"step": sampler.checkpoint.step, "steps": len(times) - 1, "cfg": sampler.guidance(cfg)}


def _read(path: Path) -> Any:
    import numpy as np

    from flywheel.core.image import BadImage, decode

    try:
        return np.asarray(decode(path.read_bytes()))
    except (OSError, BadImage) as error:
        raise UsageError(f"--ref {path} cannot be read: {error}") from error


def _slug(prompt: str) -> str:
    return "-".join(re.findall(r"\w+", prompt.lower()))[:40].strip("-") or "sample"
