"""Sample pictures of one prompt from a system or a checkpoint, one per seed: PNG files and a grid of them."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.files import digest, file_digest, write_bytes
from flywheel.core.records import System
from flywheel.core.workspace import Workspace


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
        raise UsageError(f"--size {text}: give width and height in pixels, such as 64x64")
    return int(match[2]), int(match[1])


def sample_pictures(
    checkpoint: Path,
    prompt: str,
    *,
    output: Path,
    references: Sequence[Path] = (),
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    cfg: float | None = None,
    seed: int = 0,
    count: int = 1,
) -> dict[str, Any]:
    """Write `count` pictures, of seeds `seed` … `seed + count − 1`, and a grid of them into the folder `output`.

    size: (height, width), pixels; default: the largest square trained at. The same checkpoint, request and seed give
    the same picture, whatever the count. File names contain a digest of the request, so that requests do not overwrite
    each other. Returns the request with the paths of its files. Errors: `UsageError`.
    """
    if count < 1:
        raise UsageError(f"--count {count}: ask for at least one picture")
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {output} is a file: give a folder")
    pictures = [_read(path) for path in references]

    import numpy as np

    from training.sampling import Sampler, grid

    sampler = Sampler(checkpoint)
    size = size or (max(sampler.checkpoint.config["recipe"]["resolution"].values()),) * 2
    cfg = sampler.guidance(cfg)
    request = digest(
        sampler.checkpoint.fingerprint, prompt, [file_digest(path) for path in references], size, steps, cfg
    )
    name = f"{_slug(prompt)}-{request[:8]}"
    images, files = [], []
    for each in range(seed, seed + count):  # one by one: the batch size changes the last bits
        (image,) = sampler.sample([prompt], [pictures], size=size, steps=steps, cfg=cfg, seed=each)
        files.append(output / f"{name}-seed{each}.png")
        write_bytes(files[-1], _png(image))
        images.append(image)
    captions = [f"seed {each}" for each in range(seed, seed + count)]
    sheet = output / f"{name}-seed{seed}-{seed + count - 1}-grid.png"
    grid(np.stack(images), captions, sheet, columns=4, scale=max(1, 128 // max(size)))
    return {
        "prompt": prompt,
        "references": [str(path) for path in references],
        "checkpoint": str(checkpoint),
        "step": sampler.checkpoint.step,
        "size": f"{size[1]}x{size[0]}",
        "steps": len(sampler.times(steps, (size[0] * size[1]) // sampler.autoencoder.factor**2)) - 1,
        "cfg": cfg,
        "seeds": list(range(seed, seed + count)),
        "images": [str(path) for path in files],
        "grid": str(sheet),
    }


def _read(path: Path) -> Any:
    import numpy as np

    from flywheel.core.image import BadImage, decode

    try:
        return np.asarray(decode(path.read_bytes()))
    except (OSError, BadImage) as error:
        raise UsageError(f"--ref {path} cannot be read: {error}") from error


def _png(image: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _slug(prompt: str) -> str:
    return "-".join(re.findall(r"\w+", prompt.lower()))[:40].strip("-") or "sample"
