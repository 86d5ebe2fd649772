"""A suite drawn by a generator: one picture per prompt, kept as files, so that a killed call resumes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from flywheel.core.errors import UsageError
from flywheel.core.files import digest, write_bytes
from flywheel.core.generator import Generator, Pixels, Undrawn, png
from flywheel.core.image import decode
from flywheel.presets import Evaluation
from flywheel.signals.suite import Prompt

BATCH = 32  # images sampled together
OnProgress = Callable[..., None]  # called as progress(done, total, note)


def sample_suite(
    suite: Sequence[Prompt],
    generator: Generator,
    folder: Path,
    *,
    settings: Evaluation,
    seed: int,
    progress: OnProgress | None = None,
) -> list[bytes | Undrawn]:
    """One PNG per prompt, in the order of the suite, or why there is none. Equally many references are drawn together.

    Pictures that are in `folder` already are not drawn again; where pictures of a batch depend on each other, batches.
    Errors: `UsageError` if some can only be drawn by asking again later; those drawn are kept.
    """
    refused: dict[str, Undrawn] = {}
    done = 0
    for places in batched(suite):
        batch = [suite[i] for i in places]
        missing = [p for p in batch if not (folder / picture_name(p.prompt_id)).exists()]
        done += len(batch) - len(missing)
        # Always whole batches, if the size of a batch changes the last bits of its pictures.
        asked = missing if generator.independent or not missing else batch
        for prompt, picture in zip(asked, _drawn(generator, asked, settings, seed), strict=True):
            if isinstance(picture, Undrawn):
                refused[prompt.prompt_id] = picture
            else:
                write_bytes(folder / picture_name(prompt.prompt_id), png(picture))
            done += prompt in missing
            if progress:
                progress(done, len(suite), "images")
    if again := [x for x in refused.values() if x.again]:
        raise UsageError(
            f"{len(again)} of {len(suite)} pictures could not be drawn ({again[0].reason}): run this again to resume, "
            "the others are kept"
        )
    return [refused.get(p.prompt_id) or (folder / picture_name(p.prompt_id)).read_bytes() for p in suite]


def _drawn(
    generator: Generator, prompts: Sequence[Prompt], settings: Evaluation, seed: int
) -> Iterator[Pixels | Undrawn]:
    """The pictures of prompts with equally many references, in order."""
    if prompts:
        yield from generator.draw(
            [p.text for p in prompts],
            seeds=[seed] * len(prompts),
            size=(settings.side, settings.side),
            references=[[np.asarray(decode(r)) for r in p.reference_bytes()] for p in prompts],
            steps=settings.steps,
            guidance=settings.cfg,
        )


def picture_name(prompt_id: str) -> str:
    """File name of a prompt's picture: ids that are no file name, as other systems may give, stand as their digest."""
    plain = re.fullmatch(r"[\w-][\w .-]*", prompt_id) and len(prompt_id.encode()) <= 200
    return f"{prompt_id if plain else digest(prompt_id)[:32]}.png"


def batched(suite: Sequence[Prompt]) -> list[list[int]]:
    """Places of the prompts that are drawn together: `BATCH` at most, with equally many references, fewest first."""
    ordered = sorted(range(len(suite)), key=lambda i: len(suite[i].references))
    groups = itertools.groupby(ordered, key=lambda i: len(suite[i].references))
    return [list(batch) for _, group in groups for batch in _chunks(list(group))]


def _chunks(places: list[int]) -> list[list[int]]:
    return [places[i : i + BATCH] for i in range(0, len(places), BATCH)]
