"""Rows to hold out: every first part of the order has each task and category in proportion."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from flywheel.signals.held_rows import stratified


def table(groups: dict[str | None, int], task: str = "t2i") -> pa.Table:
    names = [(f"{c}{n}", c) for c, k in groups.items() for n in range(k)]
    columns = {"sample_id": [i for i, _ in names], "task": [task] * len(names), "category": [c for _, c in names]}
    return pa.table(columns, schema=pa.schema({name: pa.string() for name in columns}))


def test_any_first_part_has_the_groups_in_proportion():
    rows = pa.concat_tables([table({"cat": 60, "dog": 30}), table({None: 10}, task="ti2i")])
    order = stratified(rows, 100, seed=1)
    assert sorted(r["sample_id"] for r in order) == sorted(rows["sample_id"].to_pylist())
    for size in (10, 20, 50):
        assert stratified(rows, size, seed=1) == order[:size]
        counts = Counter(r["category"] for r in order[:size])
        for category, total in (("cat", 60), ("dog", 30), (None, 10)):
            assert abs(counts[category] - size * total / 100) <= 1


def test_a_small_group_keeps_what_it_has():
    order = stratified(table({"a": 40, "b": 20, "c": 2}), 6, seed=0)
    assert Counter(r["category"] for r in order) == {"a": 4, "b": 2}


def test_the_order_depends_on_the_seed_and_not_on_the_order_of_the_rows():
    rows = table({"cat": 20})
    reversed_ = rows.take(list(range(19, -1, -1)))
    assert stratified(rows, 20, seed=1) == stratified(reversed_, 20, seed=1) != stratified(rows, 20, seed=2)
