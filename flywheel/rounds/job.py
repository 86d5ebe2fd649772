"""A job: the request that a run serves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """The arguments of a run; all paths absolute.

    >>> import flywheel as fw
    >>> fw.Job(workspace="/data/w", source="/data/photos").rounds
    2
    """

    workspace: str
    source: str
    captions: str | None = None
    policy: str | None = None  # None: the policy of the preset
    preset: str = "tiny"
    seed: int = 0
    rounds: int = 2
    workers: int = 2
    auto_approve: bool = False  # accept all samples without review, recorded as such; a preset can also ask for it
