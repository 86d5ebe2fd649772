"""Balance as SQL: caps, quotas and the long tail on a scored pool."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.curation.balanced import KINDS, drawn, policy


def test_caps_by_category(pictured: SimpleNamespace) -> None:
    rows, share = drawn(pictured.workspace, policy(pictured.root, "caps = { vehicle = 1 }", cap=5))
    assert rows == {"dog": 5, "car": 1, "cake": 2, "thing": 2}
    assert share == pytest.approx({k: n / 10 for k, n in rows.items()})  # neither quotas nor tail: as they come


def test_quotas_are_shares_of_the_draws(pictured: SimpleNamespace) -> None:
    rows, share = drawn(pictured.workspace, policy(pictured.root, "quotas = { food = 0.5, vehicle = 0.1 }"))
    assert rows == KINDS
    assert share == pytest.approx({"cake": 0.5, "car": 0.1, "dog": 0.4 * 8 / 10, "thing": 0.4 * 2 / 10})


def test_the_long_tail_is_drawn_more_often_up_to_a_limit(pictured: SimpleNamespace) -> None:
    _, even = drawn(pictured.workspace, policy(pictured.root, "tail = 0"))
    assert even == pytest.approx(dict.fromkeys(KINDS, 0.25))
    _, root = drawn(pictured.workspace, policy(pictured.root, "tail = 0.5"))
    total = sum(n**0.5 for n in KINDS.values())
    assert root == pytest.approx({k: n**0.5 / total for k, n in KINDS.items()})
    _, limited = drawn(pictured.workspace, policy(pictured.root, "tail = 0\nmost = 1.5"))  # 2 for the rare ones without
    weights = {"dog": 0.5 * 8, "car": 1.0 * 4, "cake": 1.5 * 2, "thing": 1.5 * 2}
    assert limited == pytest.approx({k: w / sum(weights.values()) for k, w in weights.items()})
