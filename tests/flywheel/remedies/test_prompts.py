"""Prompts for reinforcement learning: of the cases' capabilities, and none of the suite."""

from __future__ import annotations

import pytest

from flywheel.cases.events import Case
from flywheel.core.errors import UsageError
from flywheel.remedies.prompts import hold_out, rl_capabilities, write_prompts
from flywheel.signals.suite import Prompt, load_suite
from tests.flywheel.remedies.samples import samples


def test_prompts_of_rl_cases_keep_out_of_the_suite(tmp_path):
    def case(number: int, capability: str, track: str | None = "rl", status: str = "routed") -> Case:
        return Case(str(number), 1, capability, track, "p", "a prompt", status)

    cases = [case(1, "count"), case(2, "identity"), case(3, "identity"), case(4, "color", "pretraining")]
    cases += [case(5, "object", "rl", "closed"), case(6, "photorealism")]
    assert rl_capabilities(cases) == ["identity", "count"]
    with pytest.raises(UsageError, match="no open case on the RL track"):
        rl_capabilities(cases[3:])
    held = samples("count", 1)[0].caption
    counts = write_prompts(tmp_path / "p.jsonl", ["identity", "count"], 12, seed=0, exclude=frozenset([held]))
    suite = load_suite(tmp_path / "p.jsonl")
    assert counts == {"identity": 12, "count": 12} and len(suite) == 24
    assert {p.checks[0]["capability"] for p in suite} == {"identity", "count"}
    assert all(len(p.reference_bytes()) == (p.task == "ti2i") for p in suite) and held not in {p.text for p in suite}
    with pytest.raises(UsageError, match="no generator serves 'x'"):
        write_prompts(tmp_path / "q.jsonl", ["x"], 1, seed=0, exclude=frozenset())


def test_what_is_watched_is_spread_over_the_prompts_and_kept_out_of_training():
    rows = [Prompt(f"p{i}", f"card {i % 25}", "t2i", (), ({"capability": "ab"[i >= 20]},)) for i in range(40)]
    trained, watched = hold_out(rows, 4)
    assert [p.prompt_id for p in watched] == ["p0", "p10", "p20", "p30"]
    assert len(trained) == 33 and not {p.text for p in trained} & {p.text for p in watched}  # p5 says what p30 says
    assert len(hold_out(rows, 99)[1]) == 10 and hold_out(rows, 0) == (rows, []) and hold_out(rows[:3], 4)[1] == []
