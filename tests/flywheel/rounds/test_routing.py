"""Routing with a real, hardly trained checkpoint: within its budget, once, and resumed where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.cases.events import detect, load_cases
from flywheel.core.ledger import Ledger
from flywheel.core.records import System
from flywheel.core.workspace import Workspace
from flywheel.presets import Attribution, load_preset
from flywheel.rounds.routing import experiment, route
from flywheel.signals.suite import Prompt
from tests.flywheel.cases.test_events import signal
from tests.training.snapshots import card_rows, write_snapshot
from training.data.plan import MixSource
from training.phase import train
from training.recipes import recipe

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


def test_a_case_without_a_prompt_in_the_suite_waits_for_stored_evidence(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    rows = detect([signal("user-1", "count", False)], {}, 1)
    Ledger(workspace, "case_events").append(rows, key="detect/1")
    route(workspace, SUITE, System(checkpoint="none"), list, round_=1, preset=load_preset("quick"), seed=0)
    (case,) = load_cases(workspace).values()
    assert case.track == "unsure" and not Ledger(workspace, "probes").rows()
