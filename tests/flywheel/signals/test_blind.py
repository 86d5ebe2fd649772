"""Blind pairs: each prompt once to each judge, on sides that the id decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.blind import contestants, find_pair, next_pair

ONE, OTHER = "checkpoints/one", "checkpoints/other"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Twelve prompts drawn by two checkpoints; two further prompts by one of them; a user's picture."""
    filled = Workspace(tmp_path / "w")
    rows = [
        {"signal_id": f"{c}-{p}-{k}", "round": n, "checkpoint": c, "kind": "evaluation", "prompt_id": f"p{p}"}
        | {"prompt": f"prompt {p}", "task": "t2i", "capability": k, "image": f"samples/{n}/p{p}.png"}
        for n, c in enumerate((ONE, OTHER), 1)
        for p in range(12 if c == OTHER else 14)
        for k in (("count",) if p else ("count", "color"))
    ]
    user = rows[0] | {"signal_id": "user", "kind": "feedback", "checkpoint": "theirs"}
    Ledger(filled, "signals").append([*rows, user, rows[0] | {"signal_id": "bare", "image": None}], key="s")
    return filled


def test_contestants_have_pictures_and_the_latest_comes_first(workspace: Workspace) -> None:
    assert contestants(workspace) == [OTHER, ONE]


def test_a_judge_sees_every_common_prompt_once(workspace: Workspace) -> None:
    seen, sides = {}, set()
    while pair := next_pair(workspace, "ada", ONE, OTHER):
        assert {pair.model_a, pair.model_b} == {ONE, OTHER}
        number = {ONE: 1, OTHER: 2}[pair.model_a]
        assert pair.image_a == f"samples/{number}/{pair.prompt_id}.png" != pair.image_b
        assert pair.prompt == f"prompt {pair.prompt_id[1:]}" and pair.task == "t2i"
        seen[pair.prompt_id] = pair
        sides.add(pair.model_a)
        Ledger(workspace, "battles").append([{"battle_id": pair.battle_id}], key=pair.battle_id)
    assert seen.keys() == {f"p{n}" for n in range(12)} and sides == {ONE, OTHER}
    assert {p: x.capability for p, x in seen.items() if x.capability != "count"} == {"p0": "overall"}


def test_a_pair_is_found_again_by_its_own_judge_only_and_in_either_order(workspace: Workspace) -> None:
    pair = next_pair(workspace, "ada", ONE, OTHER)
    assert pair is not None
    assert find_pair(workspace, "ada", OTHER, ONE, pair.battle_id) == pair == next_pair(workspace, "ada", OTHER, ONE)
    assert find_pair(workspace, "bob", ONE, OTHER, pair.battle_id) is None
    assert find_pair(workspace, "ada", ONE, "checkpoints/none", pair.battle_id) is None
