"""Rows to hold out: every first part of the order has each task and category in proportion."""

from collections import Counter

from flywheel.signals.held_rows import stratified


def test_any_first_part_has_the_groups_in_proportion():
    rows = [
        {"sample_id": f"{c}{n}", "task": "t2i", "category": c} for c, k in (("cat", 60), ("dog", 30)) for n in range(k)
    ]
    rows += [{"sample_id": f"edit{n}", "task": "ti2i", "category": None} for n in range(10)]
    order = stratified(rows, seed=1)
    assert sorted(r["sample_id"] for r in order) == sorted(r["sample_id"] for r in rows)
    for size in (10, 20, 50):
        counts = Counter(r["category"] for r in order[:size])
        for category, total in (("cat", 60), ("dog", 30), (None, 10)):
            assert abs(counts[category] - size * total / 100) <= 1


def test_the_order_depends_on_the_seed_and_not_on_the_order_of_the_rows():
    rows = [{"sample_id": str(n), "task": "t2i", "category": "cat"} for n in range(20)]
    assert stratified(rows, 1) == stratified(rows[::-1], 1) != stratified(rows, 2)
