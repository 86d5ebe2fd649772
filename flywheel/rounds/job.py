"""A job: the request that a run serves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """The arguments of a run; all paths absolute. source: one or several paths, globs or URLs.

    >>> import flywheel as fw
    >>> fw.Job(workspace="/data/w", source="/data/photos").rounds
    2
    """

    workspace: str
    source: str | tuple[str, ...]
    captions: str | None = None
    policy: str | None = None  # None: the policy of the preset
    preset: str = "tiny"
    seed: int = 0
    rounds: int = 2
    workers: int = 2  # that curate
    auto_approve: bool = False  # accept all samples without review, recorded as such; a preset can also ask for it
    retry: bool = False  # ask again for the URLs of lists that failed before
    draw_workers: int | None = None  # that draw and judge pictures; None: one per GPU where there are several

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            object.__setattr__(self, "source", tuple(self.source))  # JSON has only lists

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source."""
        return (self.source,) if isinstance(self.source, str) else self.source
