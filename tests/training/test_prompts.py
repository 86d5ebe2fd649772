"""Which prompts a step draws."""

from __future__ import annotations

import pytest

from flywheel.core.errors import UsageError
from tests.training.rl_parts import prompts
from training.prompts import category, draw


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    return prompts(folder, 8), prompts(folder, 3, first=20)


def test_prompts_are_drawn_at_their_shares_without_repeats(cards):
    kinds = {kind: [p for p in cards[0] if category(p) == kind] for kind in ("color", "editing")}
    drawn = draw(kinds, {"color": 0.75, "editing": 0.25}, 4, 0, "x")
    assert [category(p) for p in drawn].count("color") == 3
    assert len({p.prompt_id for p in drawn}) == 4 and drawn == draw(kinds, {"color": 0.75, "editing": 0.25}, 4, 0, "x")
    counts = [
        sum(category(p) == "color" for p in draw(kinds, {"color": 0.5, "editing": 0.5}, 3, s)) for s in range(200)
    ]
    assert set(counts) == {1, 2} and abs(sum(counts) / 600 - 0.5) < 0.06
    assert len(draw({"color": kinds["color"], "editing": []}, {"color": 0.5, "editing": 0.5}, 9, 1)) == 9
    with pytest.raises(UsageError, match="no prompt is left"):
        draw(kinds, {"color": 0.0}, 3, 1)
