"""The Prefect flows that train one track outside a round: RL, the prompt enhancer, distillation.

What RL trains is submitted as the candidate of the next round, which judges it like a round's own.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.artifacts import Shown, markdown_artifact
from flows.scheduled import Count, Place, notify, retried
from flows.turns import once_at_a_time
from flywheel.core.workspace import Workspace
from flywheel.rounds import alone
from flywheel.rounds.submit import submit


@flow(name="flywheel-reinforce", on_failure=[notify], persist_result=False)
@once_at_a_time
def reinforce(
    workspace: Place, preset: str = "tiny", steps: Count | None = None, seed: int = 0, candidate: bool = True
) -> None:
    """Train the checkpoint in service by reward on the latest RL remedy; `candidate`: then submit it."""
    opened = Workspace(workspace, create=False)

    def train() -> Path:
        return alone.reinforce(opened, preset, steps=steps, seed=seed, progress=Shown())

    trained = retried("reinforce", train)
    done = f"`{opened.relative(trained)}`"
    if candidate:
        why = "reinforced on the latest RL remedy"
        plan = retried("submit", lambda: submit(opened, trained, by="flywheel-reinforce", why=why))
        done += f", the candidate of round {plan.round}"
    markdown_artifact(f"Trained by reward: {done}", "flywheel-reinforce")


@flow(name="flywheel-enhancer", on_failure=[notify], persist_result=False)
@once_at_a_time
def train_enhancer(workspace: Place, preset: str = "tiny", seed: int = 0) -> None:
    """SFT, then GRPO of the preset's prompt enhancer on the latest examples that a round has written."""
    opened = Workspace(workspace, create=False)
    tuned = retried("sft", lambda: alone.fine_tune(opened, preset, seed=seed))
    final = retried("grpo", lambda: alone.reinforce_enhancer(opened, preset, tuned, seed=seed))
    markdown_artifact(f"Enhancer: `{opened.relative(final)}`", "flywheel-enhancer")


@flow(name="flywheel-distil", on_failure=[notify], persist_result=False)
@once_at_a_time
def distil(workspace: Place, recipe: str = "dmd-tiny", prompts: Count = 128, seed: int = 0) -> None:
    """Distil the checkpoint in service to a student of a few steps, on captions of the latest snapshot."""
    opened = Workspace(workspace, create=False)

    def train() -> Path:
        return alone.distil(opened, recipe, prompts=prompts, seed=seed, progress=Shown())

    student = retried("distil", train)
    markdown_artifact(f"Student: `{opened.relative(student)}`", "flywheel-distil")
