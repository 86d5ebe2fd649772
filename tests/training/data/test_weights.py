"""Rows are drawn as often as their weights say."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.training.data.test_plan import flat, plan_of
from tests.training.snapshots import card_rows, write_snapshot
from training.data.plan import ShardError


@pytest.mark.parametrize("older", [False, True])
def test_a_balanced_stage_draws_rows_by_their_weight(tmp_path, older):
    rows = [row | {"weight": 0.5 if n % 2 else 1.75} for n, row in enumerate(card_rows(256))]
    manifest = write_snapshot(tmp_path, [{"rows": rows, "stages": ["S4", "S6"]}], balanced=("S6",), older=older)

    def drawn(stage):
        plan = plan_of(manifest, stages=(stage,), batch={64: 1})
        steps = plan.rows
        counts = Counter((row.group, row.row) for t in range(steps) for row in flat(plan.batch(t)))
        return [sum(n for (_, row), n in counts.items() if row % 2 == odd) for odd in (0, 1)], len(counts)

    (often, seldom), distinct = drawn("S6")
    assert distinct == 252 and seldom == 124  # the rows with least weight once each, four rows held out
    assert often == pytest.approx(3.5 * 128, rel=0.1)
    assert drawn("S4") == ([128, 124], 252)


def test_rows_of_weight_0_are_never_drawn_and_do_not_make_the_others_alike(tmp_path):
    rows = [row | {"weight": (0.0, 0.5, 1.75)[n % 3]} for n, row in enumerate(card_rows(192))]
    manifest = write_snapshot(tmp_path, [{"rows": rows, "stages": ["S6"]}], balanced=("S6",))
    plan = plan_of(manifest, stages=("S6",), batch={64: 1})
    counts = Counter((row.group * 64 + row.row) % 3 for t in range(plan.rows) for row in flat(plan.batch(t)))
    assert set(counts) == {1, 2} and counts[2] == pytest.approx(3.5 * counts[1], rel=0.1)


def test_weights_that_draw_nothing_are_named(tmp_path):
    rows = [row | {"weight": 0.0} for row in card_rows(64)]
    manifest = write_snapshot(tmp_path, [{"rows": rows, "stages": ["S6"]}], balanced=("S6",))
    with pytest.raises(ShardError, match="is ever drawn, as its weights are 0: raise a quota"):
        plan_of(manifest, stages=("S6",), batch={64: 1})
