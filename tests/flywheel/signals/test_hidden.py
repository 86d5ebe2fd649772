"""The hidden part of a suite: fixed once, of every capability, and followed by nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel.cases.events import load_cases
from flywheel.cases.stored import gather
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.presets import load_preset
from flywheel.rounds.gate import judge
from flywheel.signals import hidden
from flywheel.signals.suite import Prompt, load_suite, write_rows


def rows(capability: str, count: int) -> list[dict]:
    check = {"verifier": "text", "capability": capability, "text": "A"}
    return [
        {"prompt_id": f"{capability}-{n}", "prompt": f"{capability} {n}", "task": "t2i", "checks": [check]}
        for n in range(count)
    ]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "w")
    write_rows(workspace.suite, [*rows("typography", 40), *rows("slides", 36), *rows("count", 10)])
    return workspace


def test_a_share_of_every_capability_that_has_enough_prompts_is_hidden(workspace: Workspace):
    suite = load_suite(workspace.suite)
    chosen = hidden.choose(suite, 0.2, seed=0)
    assert [sum(i.startswith(c) for i in chosen) for c in ("typography", "slides", "count")] == [8, 7, 0]
    assert hidden.choose(suite[::-1], 0.2, seed=0) == chosen != hidden.choose(suite, 0.2, seed=1)
    assert hidden.choose(suite, 0.0, seed=0) == []
    both = [Prompt(f"b{n}", "b", "t2i", (), ({"capability": "a"}, {"capability": "b"})) for n in range(40)]
    assert len(hidden.choose(both, 0.2, seed=0)) == 8


def test_the_hidden_part_is_fixed_once(workspace: Workspace):
    assert hidden.split(workspace) == (load_suite(workspace.suite), [])
    hidden.write(workspace, 0.2, 0)
    chased, kept = hidden.split(workspace)
    hidden.write(workspace, 0.5, 7)  # another preset or seed, later
    assert hidden.split(workspace) == (chased, kept)
    assert len(chased) + len(kept) == 86 and len(kept) == 15
    assert not {p.prompt_id for p in chased} & {p.prompt_id for p in kept}
    assert hidden.split(Workspace(workspace.root.parent / "new")) == ([], [])


def test_a_suite_of_its_own_can_be_the_hidden_one(workspace: Workspace, tmp_path: Path):
    own = write_rows(tmp_path / "own.jsonl", rows("color", 3))
    hidden.write(workspace, str(own), 0)
    chased, kept = hidden.split(workspace)
    assert len(chased) == 86 and [p.prompt_id for p in kept] == ["color-0", "color-1", "color-2"]
    other = Workspace(tmp_path / "other")
    write_rows(other.suite, rows("color", 2))
    with pytest.raises(UsageError, match="share the prompt id 'color-0'"):
        hidden.write(other, str(own), 0)


def test_what_is_said_of_a_hidden_prompt_opens_no_case(workspace: Workspace):
    hidden.write(workspace, 0.2, 0)
    chased, kept = hidden.split(workspace)
    shared = {"kind": "mining", "task": "t2i", "verifier": "self", "capability": "typography", "passed": False}
    shared |= {"evidence": json.dumps({"seeds": 4, "seeds_passed": 0})}
    mined = [shared | {"signal_id": p.prompt_id, "prompt_id": p.prompt_id, "prompt": p.text} for p in (*chased, *kept)]
    Ledger(workspace, "signals").append(mined, key="mined")
    gather(workspace)
    assert {c.prompt_id for c in load_cases(workspace).values()} == {p.prompt_id for p in chased}


def test_a_group_that_would_keep_too_few_prompts_for_the_gate_is_chased_whole():
    """With the prompts that stay chased, a candidate that breaks nothing can be told from one that loses the margin."""

    def verdict(prompts: int) -> str:
        same = {(f"p{n}", "count"): 1.0 for n in range(prompts)}
        better = {(f"q{n}", "typography"): 1.0 for n in range(40)}
        new, old = same | better, same | dict.fromkeys(better, 0.0)
        return judge(new, old, targets=("typography",), policy=load_preset("demo").gate, pictures=4).verdict

    assert verdict(hidden.LEFT) == "PROMOTE" and verdict(hidden.LEFT - 1) == "HOLD"
    for count in (hidden.LEFT, 36, 40):
        suite = [Prompt(f"p{n}", "p", "t2i", (), ({"capability": "count"},)) for n in range(count)]
        assert count - len(hidden.choose(suite, 0.2, seed=0)) >= hidden.LEFT
