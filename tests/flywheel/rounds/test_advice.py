"""What a round leaves for the tracks that data does not serve."""

from __future__ import annotations

import pytest

from flywheel.cases.events import event, load_cases
from flywheel.core.files import read_json
from flywheel.core.ledger import Ledger
from flywheel.core.lens import latest_snapshot
from flywheel.core.progress import Progress
from flywheel.core.workspace import Workspace
from flywheel.presets import load_preset
from flywheel.remedies.enhancer_data import load_examples
from flywheel.rounds import steps
from flywheel.rounds.advice import advise
from flywheel.rounds.context import Context
from flywheel.rounds.lease import last_job
from flywheel.rounds.outlook import next_round
from flywheel.rounds.promotion import incumbent
from flywheel.signals.suite import load_suite


def test_the_other_tracks_get_their_next_training_sets(copied: Workspace):
    cases = [c for c in load_cases(copied).values() if c.is_open][:20]
    tracks = ["rl" if n % 2 else "prompt_enhancement" for n in range(len(cases))]
    rows = [event(c, 2, "routed", {"enhanced": None}, track=t) for c, t in zip(cases, tracks)]
    Ledger(copied, "case_events").append([r | {"event_id": f"t{n}"} for n, r in enumerate(rows)], key="test")
    job = last_job(copied)
    context = Context(copied, job, load_preset(job.preset), Progress())
    advise(context, steps.plan(context, next_round(copied), latest_snapshot(copied)))
    folder, asked = copied.path("remedies", "round-0003"), {p.text for p in context.suite}
    rule, prompts = read_json(folder / "rl" / "rewards.json"), load_suite(folder / "rl" / "prompts.jsonl")
    assert sum(rule["weights"].values()) == pytest.approx(1) and rule["incumbent"] == incumbent(copied).checkpoint
    assert prompts and asked.isdisjoint(p.text for p in prompts)
    pairs = load_examples(folder / "enhancer" / "train.jsonl")
    assert pairs and asked.isdisjoint(text for e in pairs for text in (e.short, e.fine))
    tested = (folder / "enhancer" / "regression.jsonl").read_text().splitlines()
    assert len(tested) >= tracks.count("prompt_enhancement")
