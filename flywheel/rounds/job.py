"""A job: what the user asked a run for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """What the user asked for; all paths absolute."""

    workspace: str
    source: str
    captions: str | None = None
    policy: str | None = None  # None: the preset's
    preset: str = "tiny"
    seed: int = 0
    rounds: int = 2
    workers: int = 2
    auto_approve: bool = False  # no person reviews; recorded as such. True too where the preset says so
