"""Submitted candidates: a checkpoint from anywhere is evaluated, gated and promoted as one that a round trained."""

# ruff: noqa: F811 - fixtures are imported, and tests take them by name
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flywheel.catalog.lineage import why
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.rounds import submit as module
from flywheel.rounds.outlook import plan_next
from flywheel.rounds.promotion import decide, incumbent
from flywheel.rounds.run import one_round
from flywheel.rounds.submit import submit
from tests.flywheel.rounds.turns import SNAPSHOT, context, first_round, preset, remember_job, remembering
from tests.training.conftest import one_thread, snapshot, start, trained  # noqa: F401 - fixtures


@pytest.fixture
def opened(tmp_path: Path, snapshot, start, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace after its first round, whose last job asks for a small preset."""
    workspace = first_round(tmp_path / "w", snapshot, start, "rl")
    remember_job(workspace)
    monkeypatch.setattr(module, "load_preset", lambda name: preset())
    return workspace


def test_a_submitted_checkpoint_is_a_candidate_like_any_other(opened: Workspace, trained, tmp_path: Path):
    plan = submit(
        opened, trained.path.parent, by="ada", why="trained by hand"
    )  # the run's folder: its final checkpoint
    assert plan.round == 2 and plan.submitted.source == str(trained.path) and plan.submitted.by == "ada"
    shown = plan_next(opened, pin=False)
    (step,) = shown["steps"]
    assert shown["pinned"] and step["kind"] == "submit" and "nothing is trained" in step["reason"]
    assert plan.waiting == {"rl": 3}
    steps: list[str] = []
    one_round(context(opened), 2, SNAPSHOT, remembering(steps))
    assert steps == ["plan", "assemble", "evaluate candidate", "gate", "route"]
    row = Ledger(opened, "rounds").rows()[-1]
    assert row["checkpoint"] == plan.submitted.checkpoint == "checkpoints/round-0002-candidate/submitted"
    if row["verdict"] != "PROMOTE":
        decide(opened, "promote", 2, by="ada", why="a test")
    assert incumbent(opened).round == 2
    told = why(opened, "round-0002-candidate")
    assert told["plan"]["submitted"]["why"] == "trained by hand" and told["system"]["weights"] == trained.fingerprint
    assert plan_next(opened, pin=False)["plan"]["incumbent"] == plan.submitted.checkpoint


def test_what_cannot_be_judged_is_refused_before_a_round_is_planned(opened: Workspace, trained, tmp_path: Path):
    damaged = tmp_path / "damaged"
    shutil.copytree(trained.path, damaged)
    (damaged / "ema.safetensors").write_bytes(b"no weights")
    for folder, by, message in (
        (tmp_path, "ada", "is not a checkpoint"),
        (damaged, "ada", "has changed since it was written"),
        (trained.path, " ", "--by NAME"),
    ):
        with pytest.raises(UsageError, match=message):
            submit(opened, folder, by=by, why="a test")
    assert not opened.round(2).plan.exists()
    plan_next(opened, pin=True)
    with pytest.raises(UsageError, match="round 2 is planned already"):
        submit(opened, trained.path, by="ada", why="a test")
