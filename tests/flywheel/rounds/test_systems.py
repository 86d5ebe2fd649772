"""What an arm draws with, written once; rounds that use it are in `test_tracks.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.records import System
from flywheel.core.workspace import Workspace
from flywheel.presets import Enhancer, load_preset
from flywheel.rounds.systems import (
    compose,
    enhancer_record,
    evaluation,
    read,
    rewriter,
    rewritten,
    student_of,
    workers,
    write,
)
from flywheel.signals.suite import Prompt
from tests.flywheel.rounds.verdicts import finished_rounds

SETTINGS = load_preset("tiny").evaluation


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return finished_rounds(tmp_path / "w", "PROMOTE", "HOLD")


def test_a_system_is_written_once(workspace: Workspace) -> None:
    first = System(checkpoint="checkpoints/2", side=64, steps=4, cfg=2.0)
    assert write(workspace, 2, "candidate", first) == first == read(workspace, 2)
    assert write(workspace, 2, "candidate", replace(first, steps=9)) == first


def test_an_older_round_draws_with_its_checkpoint_and_an_unfinished_one_with_nothing(workspace: Workspace) -> None:
    assert read(workspace, 1) == System(checkpoint="checkpoints/1")
    for number, arm in ((1, "control"), (9, "candidate")):
        with pytest.raises(UsageError, match=f"round {number} has no {arm} yet"):
            read(workspace, number, arm)


def test_its_own_way_of_sampling_goes_before_the_presets() -> None:
    own = evaluation(System(checkpoint="c", steps=2), SETTINGS)
    assert (own.steps, own.side, own.cfg) == (2, SETTINGS.side, SETTINGS.cfg)


def test_prompts_are_rewritten_once_where_the_system_has_an_enhancer(workspace: Workspace, tmp_path: Path) -> None:
    suite = [Prompt("p", "pls draw me 2 cats", "t2i", (), ()), Prompt("q", "two cats on a white card", "t2i", (), ())]
    plain = System(checkpoint="c")
    assert rewriter(workspace, plain)(suite[0].text) is None and rewritten(workspace, plain, suite, tmp_path) == {}
    rules = replace(plain, enhancer=enhancer_record(Enhancer(backend="rules")))
    changed = rewritten(workspace, rules, suite, tmp_path)
    assert changed.keys() == {"p"} and "two cats" in changed["p"].lower()
    (tmp_path / "enhanced.json").write_text('{"q": "kept"}')
    assert rewritten(workspace, rules, suite, tmp_path) == {"q": "kept"}


def test_an_enhancer_that_is_a_folder_is_named_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = enhancer_record(Enhancer(backend=str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert first["sha256"] and first["sha256"] != enhancer_record(Enhancer(backend=str(tmp_path)))["sha256"]
    assert enhancer_record(Enhancer(backend="rules"))["sha256"] == ""


def test_what_is_no_checkpoint_and_a_student_that_is_not_there(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a checkpoint"):
        compose(workspace, tmp_path, SETTINGS)
    with pytest.raises(UsageError, match="has no student"):
        student_of(workspace, System(checkpoint="c"))


def test_workers_draw_where_a_model_is_loaded_and_there_is_more_than_one(workspace: Workspace, monkeypatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ours = read(workspace, 1)
    assert workers(workspace, ours) is None  # this machine has no GPU
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    several, asked = workers(workspace, ours), workers(workspace, ours, 2)
    assert several and asked and (several.count, asked.count) == (4, 2)
    assert workers(workspace, ours, 1) is None
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    cluster = workers(workspace, ours)
    assert cluster and cluster.count is None
    server = workspace.path("checkpoints", "server")
    server.mkdir(parents=True)
    (server / "generator.json").write_text('{"kind": "endpoint", "url": "http://127.0.0.1:1/v1", "model": "m"}')
    assert workers(workspace, replace(ours, checkpoint="checkpoints/server"), 2) is None
