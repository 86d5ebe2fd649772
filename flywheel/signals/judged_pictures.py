"""Judge a folder of pictures by a suite's own checks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.core.image import BadImage, decode
from flywheel.signals.drawing import picture_name
from flywheel.signals.judging import Verifiers, judge_images
from flywheel.signals.suite import Prompt

if TYPE_CHECKING:
    from curation.verify.checks import Outcome

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_BATCH = 64  # pictures in memory


@dataclass(frozen=True)
class Judged:
    """A prompt, its picture, and the outcome of each of its checks; without a usable picture none, and the reason."""

    prompt: Prompt
    picture: Path | None
    outcomes: tuple[Outcome, ...] = ()
    reason: str = ""

    def rows(self) -> list[dict[str, Any]]:
        """One row per check: {prompt_id, capability, check, passed | None, score | None, reason}."""
        if self.picture is None:
            return [self._row(c["capability"], c["verifier"], None, None, self.reason) for c in self.prompt.checks]
        return [self._row(o.capability, o.verifier, o.passed, o.score, _why(o)) for o in self.outcomes]

    def _row(
        self, capability: str, check: str, passed: bool | None, score: float | None, reason: str
    ) -> dict[str, Any]:
        keys = ("prompt_id", "capability", "check", "passed", "score", "reason")
        return dict(zip(keys, (self.prompt.prompt_id, capability, check, passed, score, reason)))


def judge_folder(suite: Sequence[Prompt], folder: Path, *, by: Verifiers | None = None) -> list[dict[str, Any]]:
    """The rows of `Judged` of every prompt.

    The picture of a prompt is `<prompt_id>` with one of `ENDINGS` in the folder. A missing or unreadable one costs the
    rows of its own prompt: their `passed` is None, and `reason` says why.
    """
    pairs = [(p, find(p, folder) or _missing(p, folder)) for p in suite]
    return [row for judged in judge_pictures(pairs, by=by) for row in judged.rows()]


def judge_pictures(pairs: Iterable[tuple[Prompt, Path | str]], *, by: Verifiers | None = None) -> Iterator[Judged]:
    """Judge the picture of each prompt, in order, a bounded number at a time; instead of a path, why there is none."""
    rest = iter(pairs)
    while batch := list(itertools.islice(rest, _BATCH)):
        read = [(prompt, picture, _bytes(prompt, picture)) for prompt, picture in batch]
        usable = [(prompt, image) for prompt, _, image in read if isinstance(image, bytes)]
        outcomes = iter(judge_images([p for p, _ in usable], [image for _, image in usable], by=by))
        for prompt, picture, image in read:
            if isinstance(image, bytes) and isinstance(picture, Path):
                yield Judged(prompt, picture, tuple(next(outcomes)))
            else:
                yield Judged(prompt, None, reason=str(image))


def find(prompt: Prompt, folder: Path) -> Path | None:
    """The picture of a prompt in a folder; ids that are no file name stand as in `picture_name`."""
    stem = picture_name(prompt.prompt_id).removesuffix(".png")
    return next((p for e in ENDINGS if (p := folder / f"{stem}{e}").is_file()), None)


def _missing(prompt: Prompt, folder: Path) -> str:
    return f"there is no picture {prompt.prompt_id}.png or .jpg in {folder}"


def _bytes(prompt: Prompt, picture: Path | str) -> bytes | str:
    """The picture's bytes, or why it cannot be judged."""
    if missing := [r for r in prompt.references if not r.is_file()]:
        return f"the reference {missing[0]} is missing"
    if isinstance(picture, str):
        return picture
    try:
        image = picture.read_bytes()
        decode(image)
    except (OSError, BadImage) as error:
        return f"{picture.name} cannot be read: {error}"
    return image


def _why(outcome: Outcome) -> str:
    """Why a check was not applied; empty if it was."""
    return "" if outcome.passed is not None else str(outcome.evidence.get("not_applied", "it could not be applied"))
