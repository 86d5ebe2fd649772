"""A checkpoint of ours as a generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.core.generator import Pixels, Undrawn
from flywheel.core.mirror import fetched

if TYPE_CHECKING:
    from training.sampling import Sampler


class CheckpointGenerator:
    """The EMA weights of a checkpoint folder, loaded when the first picture is drawn."""

    independent = False  # the size of a batch changes the last bits of its pictures

    def __init__(self, model: str) -> None:
        self.model = Path(model)

    @cached_property
    def sampler(self) -> Sampler:
        """The loaded checkpoint. Errors: `UsageError` if the folder is not one."""
        from training.sampling import Sampler

        return Sampler(fetched(self.model))

    @cached_property
    def fingerprint(self) -> str:
        """Digest of EMA weights, autoencoder and condition encoder."""
        from training.checkpoint import Checkpoint

        return Checkpoint(fetched(self.model)).fingerprint

    @property
    def largest(self) -> int:
        """Side of the largest square that it was trained at, pixels."""
        return max(self.sampler.checkpoint.config["recipe"]["resolution"].values())

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
        """See `flywheel.core.generator.Generator`; outside of a mask, the first reference's pixels stay as they are."""
        from training.sampling import NOT_FINITE

        pictures, finite = self.sampler.draw(
            prompts,
            references,
            size=size,
            steps=steps,
            cfg=guidance,
            seed=list(seeds),
            negative=negative or "",
            masks=masks,
        )
        for picture, whole in zip(pictures, finite):
            yield picture if whole else Undrawn(NOT_FINITE)
