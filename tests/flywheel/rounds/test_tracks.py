"""The tracks of a round: each label has its own remedy and its own run, and a killed step ends in the same bytes."""

# ruff: noqa: F811 - fixtures are imported, and tests take them by name
from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.cases.events import load_cases
from flywheel.catalog.lineage import why
from flywheel.core.files import file_digest, read_json
from flywheel.core.ledger import Ledger
from flywheel.core.records import RoundResult, System
from flywheel.core.storage import located
from flywheel.core.workspace import Workspace
from flywheel.presets import Distil, Enhancer, Rewards, load_preset
from flywheel.remedies import enhancer as enhancers
from flywheel.rounds.run import one_round, summarise
from flywheel.rounds.sample import promoted_system
from flywheel.rounds.tracks import whole_folder
from tests.flywheel.remedies.test_enhancer_training import tiny  # noqa: F401 - a fixture
from tests.flywheel.rounds.turns import SNAPSHOT, context, first_round, planned, remembering, said
from tests.training.conftest import one_thread, snapshot, start, trained  # noqa: F401 - fixtures
from training.checkpoint import Checkpoint


def digests(workspace: Workspace) -> dict[str, str]:
    """{path: SHA-256} of what a round leaves, but for training's log of speeds."""
    paths = [p for f in ("checkpoints", "samples", "remedies", "enhancers") for p in workspace.path(f).rglob("*")]
    files = [p for p in paths if p.is_file() and p.name != "metrics.jsonl" and ".hashes" not in p.parts]
    return {workspace.relative(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def turned(tmp_path_factory, snapshot, start) -> tuple[Workspace, list[str], str]:
    """(workspace after an uninterrupted round for RL cases, its steps, what it said)."""
    workspace = first_round(tmp_path_factory.mktemp("rl") / "w", snapshot, start, "rl")
    run, steps = context(workspace), list[str]()
    one_round(run, 2, SNAPSHOT, remembering(steps))
    return workspace, steps, said(run)


def test_rl_cases_are_served_by_rl_and_the_candidate_is_judged_with_its_student(turned):
    workspace, steps, told = turned
    assert steps == [
        "plan", "advise", "reinforce", "distil", "assemble", "evaluate candidate", "evaluate student", "gate", "route",
    ]  # fmt: skip
    plan, places = planned(workspace, 2), workspace.round(2)
    assert plan["steps"] == 0 and plan["mix"] == [] and plan["incumbent_round"] == 1
    system = System.read(places.system("candidate"))
    assert system.checkpoint == "checkpoints/round-0002-candidate-rl/final" and (system.side, system.steps) == (32, 1)
    student = System.read(places.system("student"))
    assert system.student == student.checkpoint and (student.steps, student.cfg) == (2, 1.0)
    result = RoundResult.read(places.result)
    assert result.system["id"] == system.id and result.student["verdict"] in ("PROMOTE", "HOLD", "REJECT")
    remedied = [e for e in Ledger(workspace, "case_events").rows() if e["kind"] == "remedied"]
    assert len(remedied) == 3 and {e["track"] for e in remedied} == {"rl"}
    for drawn in (system.checkpoint, student.checkpoint):  # each lists its own files, not its parent's
        for name, listed in read_json(workspace.path(drawn, "config.json"))["files"].items():
            assert listed["sha256"] == file_digest(workspace.path(drawn, name))
    assert "rewards on prompts that were not trained on: instruction" in told
    (_, last) = summarise(workspace, 1.0).rounds
    assert last.system == system.as_dict() and last.other_failure_rates.keys() == {"student"}


def test_the_same_cases_as_pretraining_cases_make_another_plan_and_another_run(turned, tmp_path, snapshot, start):
    workspace = first_round(tmp_path / "w", snapshot, start, "pretraining")
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        one_round(context(workspace), 2, SNAPSHOT, remembering(steps, stop_at="train"))
    assert steps == ["plan", "advise", "collect", "review", "shard"]
    mine, rl = planned(workspace, 2), planned(turned[0], 2)
    assert mine["steps"] > 0 and mine["mix"][1]["samples"] == 4 and mine["targets"] == rl["targets"] != []
    updates = [{(r["track"], r["kind"]): r.get("updates") for r in p["remedies"] if "track" in r} for p in (mine, rl)]
    assert updates[0]["rl", "grpo"] == 0 == updates[1]["pretraining", "data"]
    assert updates[1]["rl", "grpo"] == 2 and updates[0]["pretraining", "data"] == mine["steps"]


def test_killed_in_rl_in_distillation_and_between_drawing_and_judging_it_ends_in_the_same_bytes(
    turned, tmp_path, snapshot, start
):
    workspace = first_round(tmp_path / "w", snapshot, start, "rl")

    class Killed(BaseException):
        pass

    def killing(number: int):
        run, seen = context(workspace), list[str]()
        advance = run.progress.__class__.__call__

        class Fatal(run.progress.__class__):
            def __call__(self, done, total=None, note=""):
                seen.append(note)
                advance(self, done, total, note)
                if len(seen) == number:
                    raise Killed

        object.__setattr__(run, "progress", Fatal(run.progress.stream))
        return run

    for number in (1, 3, 6):  # after the first update of RL, of the distillation, and while pictures are drawn
        with pytest.raises(Killed):
            one_round(killing(number), 2, SNAPSHOT, remembering([]))
    one_round(context(workspace), 2, SNAPSHOT, remembering([]))
    assert digests(workspace) == digests(turned[0])
    events = [{e["event_id"] for e in Ledger(w, "case_events").rows()} for w in (workspace, turned[0])]
    assert events[0] == events[1]


def test_several_processes_reinforce_and_distil_what_one_does(turned, tmp_path, snapshot, start):
    """Where the preset says so."""
    workspace = first_round(tmp_path / "w", snapshot, start, "rl")
    run = context(workspace, training=replace(load_preset("demo").training, processes=2))
    with pytest.raises(KeyboardInterrupt):
        one_round(run, 2, SNAPSHOT, remembering([], stop_at="assemble"))
    for arm in ("candidate-rl", "student"):
        two, one = (Checkpoint(w.round(2).checkpoint(arm) / "final") for w in (workspace, turned[0]))
        a, b = two.tensors("ema"), one.tensors("ema")
        assert two.step == one.step == 2 and max((a[name] - b[name]).abs().max() for name in a) < 1e-3
    assert "rewards on prompts that were not trained on: instruction" in said(run)


def test_why_knows_the_checkpoints_of_every_step(turned):
    workspace = turned[0]
    candidate, student = (why(workspace, f"round-0002-{arm}") for arm in ("candidate-rl", "student"))
    assert candidate["system"]["id"] and candidate["training"]["rl"]["steps"] == 2
    assert student["checkpoint"].endswith("round-0002-student/final") and student["training"]["dmd"]["steps"] == 2
    assert student["parents"] == [{"checkpoint": "checkpoints/round-0001-candidate/final", "round": 1}]
    (case, *_) = load_cases(workspace)
    assert why(workspace, case)["remedies"][0]["track"] == "rl"


def test_a_better_enhancer_is_a_better_system(tiny: Path, tmp_path, snapshot, start, monkeypatch):
    monkeypatch.setattr(enhancers, "NEW_TOKENS", 12)
    workspace = first_round(tmp_path / "w", snapshot, start, "prompt_enhancement")
    settings = Enhancer(backend=str(tiny), examples=8, sft_steps=1, grpo_steps=1, batch=2, lora=0)
    run, steps = context(workspace, enhancer=settings, distil=Distil(), rewards=Rewards()), list[str]()
    one_round(run, 2, SNAPSHOT, remembering(steps))
    assert steps[2:5] == ["fine-tune the enhancer", "reinforce the enhancer", "assemble"]
    system = System.read(workspace.round(2).system("candidate"))
    assert system.enhancer["backend"] == "enhancers/round-0002/grpo" and system.enhancer["sha256"]
    assert system.checkpoint == "checkpoints/round-0001-candidate/final"  # only the enhancer is new
    assert system.id != System(**{**vars(system), "enhancer": None}).id
    drawn = json.loads((workspace.round(2).samples("candidate") / "enhanced.json").read_text())
    assert drawn.keys() <= {p.prompt_id for p in run.suite}
    assert "enhancer: loss" in said(run) and "enhancer: reward" in said(run)


def test_a_system_that_draws_through_the_rules_says_so(tmp_path, snapshot, start):
    workspace = first_round(tmp_path / "w", snapshot, start, "prompt_enhancement")
    run, steps = context(workspace, enhancer=Enhancer(draw=True), distil=Distil(), rewards=Rewards()), list[str]()
    with pytest.raises(KeyboardInterrupt):
        one_round(run, 2, SNAPSHOT, remembering(steps, stop_at="train"))
    (sft, _) = [r for r in planned(workspace, 2)["remedies"] if r.get("track") == "prompt_enhancement"]
    assert "not available: no enhancer model" in sft["reason"] and planned(workspace, 2)["waiting"]
    assert promoted_system(workspace).enhancer is None  # of a workspace from before there were systems


def test_a_model_whose_upload_was_cut_off_is_made_again(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its copy here is whole, what is on S3 is not: the copy may belong to another run, so it is not taken."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, made = located(f"{s3}/w/enhancers/round-0002/sft"), list[Path]()

    def write(unfinished: Path) -> None:
        made.append(unfinished)
        unfinished.mkdir(parents=True)
        for name in ("model.safetensors", "config.json"):
            (unfinished / name).write_text(str(len(made)))

    whole_folder(folder, write)
    (folder / "config.json").unlink()
    assert whole_folder(folder, write) == folder and len(made) == 2
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"model.safetensors": "2", "config.json": "2"}
    whole_folder(folder, write)
    assert len(made) == 2
