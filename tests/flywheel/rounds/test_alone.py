"""RL and distillation outside a round follow what the rounds wrote, and find a finished run again."""

# ruff: noqa: F811 - fixtures are imported, and tests take them by name
from __future__ import annotations

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.progress import Progress
from flywheel.core.workspace import Workspace
from flywheel.rounds import alone
from flywheel.rounds.run import one_round
from tests.flywheel.rounds.turns import SNAPSHOT, context, first_round, remembering
from tests.training.conftest import one_thread, snapshot, start, trained  # noqa: F401 - fixtures
from training.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def advised(tmp_path_factory, snapshot, start) -> Workspace:
    """A workspace whose second round has written its RL remedy, and was stopped there."""
    workspace = first_round(tmp_path_factory.mktemp("rl") / "w", snapshot, start, "rl")
    with pytest.raises(KeyboardInterrupt):
        one_round(context(workspace), 2, SNAPSHOT, remembering([], stop_at="reinforce"))
    return workspace


def test_rl_follows_the_latest_remedy_and_a_finished_run_is_found(advised):
    calls = []

    class Counted(Progress):
        def __call__(self, *advance):
            calls.append(advance)

    trained = [alone.reinforce(advised, "tiny", steps=1, seed=0, progress=Counted()) for _ in range(2)]
    assert trained[0] == trained[1] and len(calls) == 1 and Checkpoint(trained[0]).step == 1
    assert trained[0].parent.name.startswith("rl-") and Checkpoint(trained[0]).config["rl"]["steps"] == 1


def test_a_student_is_distilled_from_the_checkpoint_in_service(advised, tmp_path):
    recipe = tmp_path / "dmd.toml"
    recipe.write_text('base = "dmd-tiny"\nsteps = 1\nside = 32\nbatch = 2\nfake_updates = 1\nsigmas = [1.0, 0.5]\n')
    student = alone.distil(advised, str(recipe), prompts=4, seed=0, progress=Progress())
    assert Checkpoint(student).step == 1 and student.parent.name.startswith("student-")
    assert len(list(advised.path("distil").glob("*/prompts.jsonl"))) == 1


def test_what_is_missing_is_named(tmp_path, advised):
    empty = Workspace(tmp_path / "w")
    with pytest.raises(UsageError, match="has no RL remedy"):
        alone.reinforce(empty, "tiny", steps=1, seed=0, progress=Progress())
    with pytest.raises(UsageError, match="no promoted checkpoint"):
        alone.distil(empty, "dmd-tiny", prompts=1, seed=0, progress=Progress())
    with pytest.raises(UsageError, match="preset tiny is rules, which has no weights to train"):
        alone.fine_tune(advised, "tiny", seed=0)
    preset = tmp_path / "lm.toml"
    preset.write_text('base = "tiny"\n[enhancer]\nbackend = "models/qwen"\n')
    with pytest.raises(UsageError, match="has no enhancer remedy"):
        alone.fine_tune(advised, str(preset), seed=0)
