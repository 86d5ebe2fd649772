"""A folder of pictures as a generator: what a model drew elsewhere, by prompt and seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from flywheel.core.errors import UsageError
from flywheel.core.files import digest, file_digest
from flywheel.core.generator import Pixels, Undrawn
from flywheel.core.image import BadImage, decode
from flywheel.signals.drawn_elsewhere import Drawn
from flywheel.signals.judged_pictures import ENDINGS
from flywheel.signals.suite import Prompt, load_suite


class RecordedGenerator:
    """Pictures in `folder` (see `flywheel.signals.drawn_elsewhere`) of the prompts of `suite`, a suite file.

    A preset may leave `suite` out: rounds take the workspace's own.

    The picture of a prompt and a seed that is not there costs its own row: its reason names the file that is missing.
    Size, steps and guidance are those that the pictures were drawn with.
    """

    independent = True

    def __init__(self, folder: str, suite: str = "") -> None:
        for name, value in (("folder", folder), ("suite", suite)):
            if not isinstance(value, str):
                raise UsageError(f"{name} is {value!r}: give a path")
        self.folder, self.suite = Path(folder), Path(suite)

    def require_folder(self) -> None:
        """Errors: `UsageError` if there is no folder of pictures."""
        if not self.folder.is_dir():
            raise UsageError(f"folder is {self.folder}, which is not there: give a folder of pictures")

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all pictures by name, and of the suite that names them."""
        files = sorted(p for p in self.folder.rglob("*") if p.suffix in ENDINGS)
        listed = [(p.relative_to(self.folder).as_posix(), file_digest(p)) for p in files]
        return digest(listed, file_digest(self.suite))

    @cached_property
    def _prompts(self) -> dict[str, Prompt]:
        """Prompts by text and references."""
        prompts = load_suite(self.suite)
        return {_key(p.text, [np.asarray(decode(r)) for r in p.reference_bytes()]): p for p in prompts}

    @cached_property
    def _drawn(self) -> Drawn:
        return Drawn.of(self.folder)

    def draw(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        size: tuple[int, int],
        references: Sequence[Sequence[Pixels]] | None = None,
        masks: Sequence[Pixels | None] | None = None,
        negative: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Iterator[Pixels | Undrawn]:
        """See `flywheel.core.generator.Generator`."""
        for text, seed, shown in zip(prompts, seeds, references or [()] * len(prompts), strict=True):
            yield self._picture(text, seed, shown)

    def _picture(self, text: str, seed: int, references: Sequence[Pixels]) -> Pixels | Undrawn:
        prompt = self._prompts.get(_key(text, references))
        if prompt is None:
            return Undrawn(f"{self.suite} has no prompt {text[:80]!r} with these references: it was not recorded")
        path = self._drawn.pictures(prompt).get(seed)
        if path is None:
            return Undrawn(f"there is no picture {self.folder / str(seed) / prompt.prompt_id}.png: draw it")
        try:
            return np.asarray(decode(path.read_bytes()))
        except (OSError, BadImage) as error:
            return Undrawn(f"{path} cannot be read: {error}")


def _key(text: str, references: Sequence[Pixels]) -> str:
    return digest(text, [digest(r.shape, r.tobytes().hex()) for r in references])
