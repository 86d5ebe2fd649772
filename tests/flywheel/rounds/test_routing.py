"""Routing with a real, hardly trained checkpoint: within its budget, once, and resumed where it stopped."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from flywheel.cases.events import detect, load_cases
from flywheel.core.files import write_bytes
from flywheel.core.ledger import Ledger
from flywheel.core.records import System
from flywheel.core.workspace import Workspace
from flywheel.presets import Attribution, load_preset
from flywheel.rounds.routing import evaluate_cases, experiment, record_retest, route
from flywheel.signals import arena, feedback, mining
from flywheel.signals.feedback import Feedback
from flywheel.signals.suite import Prompt
from tests.flywheel.cases.test_events import signal
from tests.flywheel.signals.test_judge import YES, Server, server
from tests.training.snapshots import card_rows, disc, png, write_snapshot
from training.data.plan import MixSource
from training.phase import train
from training.recipes import recipe

__all__ = ["server"]
CAPTIONS = [(str(n), f"{n} red circles on a white card") for n in range(30)]
COUNT = {"verifier": "count", "capability": "count"}
SUITE = [Prompt(f"p{n}", f"please draw {n} green stars", "t2i", (), (COUNT | {"count": n},)) for n in range(5, 9)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    workspace = Workspace(tmp_path_factory.mktemp("experiment") / "w")
    manifest = write_snapshot(workspace.path("pool"), [{"rows": card_rows(70)}])
    tiny = recipe("tiny", batch={64: 4}, resolution={64: 32}, channels=16, text_tokens=16, t2i_share=1.0)
    checkpoint = train(workspace.path("run"), [MixSource(manifest=manifest)], tiny, steps=1).path
    rows = detect([signal(p.prompt_id, "count", False) | {"prompt": p.text} for p in SUITE], {}, 1)
    Ledger(workspace, "case_events").append(rows, key="detect/1")
    return workspace, checkpoint


def test_a_budget_is_spent_on_what_was_tried_least_and_the_rest_is_unsure(world: tuple[Workspace, Path]):
    workspace, checkpoint = world
    preset = load_preset("quick")
    settings = Attribution(seeds=2, enhanced_seeds=1, budget=6)  # two prompts a round
    preset = replace(preset, attribution=settings)
    system = System(checkpoint=workspace.relative(checkpoint), side=32, steps=1, cfg=3.0)
    arguments = (SUITE, system, lambda: CAPTIONS)

    def probed() -> dict[str, list[int]]:
        rows = Ledger(workspace, "probes").rows()
        assert all((r["seeds"], r["enhanced_seeds"]) == (2, 1) for r in rows)
        return {p.prompt_id: sorted(r["round"] for r in rows if r["prompt_id"] == p.prompt_id) for p in SUITE}

    cases = list(load_cases(workspace).values())
    experiment(workspace, cases, *arguments, round_=1, preset=preset, seed=0)  # killed before it could route
    assert probed() == {"p5": [1], "p6": [1], "p7": [], "p8": []}
    pictures = {p: p.stat().st_mtime_ns for p in workspace.path("probes").rglob("*.png")}
    assert len(pictures) == 6
    route(workspace, *arguments, round_=1, preset=preset, seed=0)
    assert {p: p.stat().st_mtime_ns for p in workspace.path("probes").rglob("*.png")} == pictures
    tracks = {c.prompt_id: c.track for c in load_cases(workspace).values()}
    assert tracks["p7"] == tracks["p8"] == "unsure" and "unsure" not in (tracks["p5"], tracks["p6"])
    route(workspace, *arguments, round_=2, preset=preset, seed=0)
    assert probed() == {"p5": [1], "p6": [1], "p7": [2], "p8": [2]}
    assert "unsure" not in {c.track for c in load_cases(workspace).values()}


def test_a_case_that_nothing_can_judge_goes_to_a_person_with_the_question(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    rows = detect([signal("user-1", "count", False)], {}, 1)
    Ledger(workspace, "case_events").append(rows, key="detect/1")
    route(workspace, SUITE, System(checkpoint="none"), list, round_=1, preset=load_preset("quick"), seed=0)
    (case,) = load_cases(workspace).values()
    assert case.track == "human" and not Ledger(workspace, "probes").rows()
    evidence = json.loads(Ledger(workspace, "case_events").rows()[-1]["evidence"])
    assert "no verifier can judge count" in evidence["reason"] and "number of things" in evidence["question"]


@pytest.fixture
def reported(world: tuple[Workspace, Path], tmp_path: Path) -> tuple[Workspace, Path]:
    """A workspace with one failure of every kind of signal, each on a prompt of its own, and a checkpoint."""
    workspace, checkpoint = Workspace(tmp_path / "w"), tmp_path / "w" / "run"
    shutil.copytree(world[1], checkpoint)
    write_bytes(workspace.path("seen.png"), png(disc("red", "left", (32, 32))))
    thumb = {"thumbs": "down", "prompt": "three cats on a red sofa", "reason": "only two cats", "image": "seen.png"}
    edit = {"thumbs": "down", "prompt": "make the disc blue", "task": "ti2i", "references": ["seen.png"]}
    lost = Feedback.model_validate({**edit, "event_id": "3", "references": [], "prompt": "make it snow"})
    events = [Feedback.model_validate({**e, "event_id": str(n)}) for n, e in enumerate((thumb, edit))]
    feedback.record(workspace, [*events, lost], key="a")
    votes = {"battle_id": "b", "model_a": "ours", "model_b": "theirs", "winner": "model_b", "prompt": "a blue lamp"}
    arena.vote(workspace, arena.Battle.model_validate(votes), model="ours")
    judged = {"prompt_id": "mined/1", "prompt": "two dogs", "capability": "count", "checkpoint": "x", "seed": 1}
    judgements = pa.Table.from_pylist([judged | {"verifier": "count", "score": 0.0, "threshold": 1.0}])
    Ledger(workspace, "signals").append(mining.mine(judgements, mining.Mining(), batch="a"), key="mined")
    outside = {"signal_id": "e", "kind": "evaluation", "prompt_id": "geneval-1", "prompt": "a green bus", "task": "t2i"}
    outside |= {"verifier": "geneval", "passed": False, "evidence": "{}"}
    Ledger(workspace, "signals").append([outside], key="outside")
    return workspace, checkpoint


def test_every_kind_of_signal_reaches_closed_or_a_person(reported: tuple[Workspace, Path], server: Server):
    workspace, checkpoint = reported
    preset = load_preset("quick")
    judge = {"url": server.url, "model": "judge"}
    evaluation = replace(preset.evaluation, side=32, steps=1, judge=judge)
    preset = replace(preset, attribution=Attribution(seeds=1, enhanced_seeds=0), evaluation=evaluation)
    ratings = dict.fromkeys(("success", "no_overediting", "natural", "no_artifacts"), 9)
    server.replies = [lambda: (200, ratings if "Rate from 0 to 10" in str(server.requests[-1]) else YES)]
    route(workspace, [], checkpoint, lambda: CAPTIONS, round_=1, preset=preset, seed=0)
    cases = {c.prompt: c for c in load_cases(workspace).values()}
    kinds = {r["kind"] for r in Ledger(workspace, "signals").rows()}
    assert kinds == {"feedback", "arena", "mining", "evaluation"} and len(cases) == 6
    lost = cases.pop("make it snow")
    assert lost.track == "human" and all(c.track == "rl" for c in cases.values()), cases  # the judge passes all seeds

    evaluate_cases(workspace, [], checkpoint, round_=2, preset=preset, seed=5)
    evaluate_cases(workspace, [], checkpoint, round_=2, preset=preset, seed=5)  # resumed
    record_retest(workspace, 2)
    assert {c.prompt for c in load_cases(workspace).values() if c.status == "closed"} == cases.keys()


def test_without_a_judge_every_kind_of_signal_has_checks_or_goes_to_a_person(reported: tuple[Workspace, Path]):
    workspace, checkpoint = reported
    sign = Feedback(event_id="s", thumbs="down", prompt='a sign, "OPEN"')
    feedback.record(workspace, [sign], key="sign")
    preset = load_preset("quick")
    evaluation = replace(preset.evaluation, side=32, steps=1)
    preset = replace(preset, attribution=Attribution(seeds=1, enhanced_seeds=0), evaluation=evaluation)
    route(workspace, [], checkpoint, lambda: CAPTIONS, round_=1, preset=preset, seed=0)
    tracks = {c.prompt: c.track for c in load_cases(workspace).values()}
    assert tracks.pop(sign.prompt) not in (None, "unsure") and len(Ledger(workspace, "probes").rows()) == 1
    assert tracks.pop("two dogs") in (None, "unsure", "human") and set(tracks.values()) == {"human"}
    asked = [json.loads(e["evidence"]) for e in Ledger(workspace, "case_events").rows() if e["kind"] == "routed"]
    (cats,) = [e for e in asked if "only two cats" in e.get("question", "")]
    assert cats["pictures"] == ["seen.png"]
