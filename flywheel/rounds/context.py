"""What all steps of a run share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.core.ledger import Ledger
from flywheel.core.lens import shard_manifest
from flywheel.core.progress import Progress, plain_step
from flywheel.core.records import RoundPlan
from flywheel.core.workspace import Workspace
from flywheel.presets import Preset
from flywheel.rounds.job import Job
from flywheel.signals import hidden
from flywheel.signals.suite import Prompt

if TYPE_CHECKING:
    from curation.policy.policy import Policy


@dataclass(frozen=True)
class Context:
    """The workspace, the request, its preset and the progress display: shared by all steps of a run.

    step: calls a part of a step that an orchestrator records by itself, as `plain_step` does.
    """

    workspace: Workspace
    job: Job
    preset: Preset
    progress: Progress
    step: Callable[..., Any] = plain_step

    @cached_property
    def suite(self) -> list[Prompt]:
        """The held-out prompts that rounds chase; none before `hold_out` has written them."""
        return self._parts[0]

    @cached_property
    def hidden(self) -> list[Prompt]:
        """The held-out prompts that are only judged (`flywheel.signals.hidden`)."""
        return self._parts[1]

    @property
    def held_out(self) -> list[Prompt]:
        """All of them: none is trained on."""
        return [*self.suite, *self.hidden]

    @cached_property
    def _parts(self) -> tuple[list[Prompt], list[Prompt]]:
        return hidden.split(self.workspace)

    @property
    def policy_name(self) -> str:
        """Name or path of the curation policy."""
        return self.job.policy or self.preset.policy

    @cached_property
    def policy(self) -> Policy:
        """The curation policy."""
        from curation.policy.reader import load_policy

        return load_policy(self.policy_name)

    @property
    def images(self) -> int:
        """Number of pictures that one evaluation draws."""
        return len(self.held_out) * self.preset.evaluation.pictures

    def rows(self, ledger: str) -> list[dict[str, Any]]:
        """Every row of a ledger, oldest first."""
        return Ledger(self.workspace, ledger).rows()

    def append(self, ledger: str, rows: list[dict[str, Any]], *, key: str) -> None:
        """Append to a ledger, once per key."""
        Ledger(self.workspace, ledger).append(rows, key=key)

    def manifest(self, plan: RoundPlan) -> Path:
        """Shard manifest of the snapshot that the plan pins; newer data enters the next round."""
        return shard_manifest(self.workspace, plan.snapshot)
