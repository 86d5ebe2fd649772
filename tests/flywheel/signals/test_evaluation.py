"""An evaluation is recorded once, and a prompt that is refused costs its own row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.presets import Evaluation
from flywheel.signals.evaluation import evaluate
from flywheel.signals.suite import Prompt
from tests.flywheel.signals.plain_generator import PlainGenerator

SETTINGS = Evaluation(suite="pool", side=16, steps=1, cfg=1.0, pictures=2)
CHECK = {"verifier": "text", "capability": "typography", "text": "EXIT"}


def prompt(name: str, text: str) -> Prompt:
    return Prompt(name, text, "t2i", (), (CHECK,))


def test_each_picture_is_judged_once_and_a_refused_prompt_by_no_check(tmp_path: Path):
    workspace, generator = Workspace(tmp_path / "w"), PlainGenerator()
    suite = [prompt("a", 'a sign "EXIT"'), prompt("b", 'a forbidden sign "EXIT"')]
    for _ in range(2):
        results = evaluate(workspace, suite, generator, "m", round_=1, arm="candidate", settings=SETTINGS, seed=3)
    assert results == {("a", "typography"): 0.0}  # of two pictures without text none passes
    assert len(generator.asked) == 2, "the second time it is read from the ledger"
    rows = Ledger(workspace, "signals").rows()
    assert sorted((r["prompt_id"], r["passed"]) for r in rows) == [("a", False)] * 2 + [("b", None)] * 2
    assert len({r["signal_id"] for r in rows}) == 4
    shown = sorted(r["image"] for r in rows if r["image"])
    assert len(shown) == 2 and "seed-1" in shown[1] and all((workspace.root / path).exists() for path in shown)


def test_what_is_drawn_may_read_otherwise_than_what_is_judged(tmp_path: Path):
    workspace, generator = Workspace(tmp_path / "w"), PlainGenerator()
    how = {"round_": 1, "arm": "candidate", "settings": replace(SETTINGS, pictures=1), "seed": 0}
    evaluate(workspace, [prompt("a", "a sign")], generator, "m", rewritten={"a": "a large, sharp sign"}, **how)
    assert generator.asked == [["a large, sharp sign"]]
    assert [r["prompt"] for r in Ledger(workspace, "signals").rows()] == ["a sign"]


def test_a_generator_that_refuses_everything_ends_the_evaluation_and_nothing_is_recorded(tmp_path: Path):
    workspace, suite = Workspace(tmp_path / "w"), [prompt("b", "a forbidden sign")]
    how = {"round_": 1, "arm": "candidate", "settings": SETTINGS, "seed": 0}
    with pytest.raises(UsageError, match="none of 1 pictures could be drawn: it is forbidden"):
        evaluate(workspace, suite, PlainGenerator(), "m", **how)
    assert not Ledger(workspace, "signals").rows()
    assert evaluate(workspace, suite, PlainGenerator(), "m", must_draw=False, **how) == {}
