"""What a judgement answers: weights of balanced rows, and the same files whatever part of the pool comes at once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from curation.decide import judge as judging
from curation.decide.judge import judge
from curation.run import configure, curate
from tests.curation.balanced import KINDS, drawn, policy
from training.data.plan import ShardError, read_manifest


def test_quotas_are_shares_of_the_draws(pictured: SimpleNamespace) -> None:
    rows, share = drawn(pictured.workspace, policy(pictured.root, "quotas = { food = 0.5, vehicle = 0.1 }"))
    assert rows == KINDS
    assert share == pytest.approx({"cake": 0.5, "car": 0.1, "dog": 0.4 * 8 / 10, "thing": 0.4 * 2 / 10})


def test_groups_without_a_share_are_not_drawn_and_the_quotas_of_the_others_hold(pictured: SimpleNamespace) -> None:
    """The quotas leave nothing to others, of whom there are some; their sum is a little less than 1."""
    quotas = policy(pictured.root, "quotas = { food = 0.7, vehicle = 0.2, animal = 0.1 }")
    rows, share = drawn(pictured.workspace, quotas)
    assert rows == KINDS and share == pytest.approx({"cake": 0.7, "car": 0.2, "dog": 0.1, "thing": 0.0}, abs=1e-12)
    shards = read_manifest(curate(pictured.workspace, quotas).manifest, ["S6"], check=False)
    assert [s.least_weight for s in shards] == pytest.approx([0.1 * 16 / 8] * len(shards))
    nothing = "animal = 0, vehicle = 0, food = 0, other = 0"
    never = curate(pictured.workspace, policy(pictured.root, f"quotas = {{ {nothing} }}"))
    with pytest.raises(ShardError, match="no row of .* is ever drawn, as its weights are 0: raise a quota"):
        read_manifest(never.manifest, ["S6"], check=False)


def test_the_long_tail_is_drawn_more_often_up_to_a_limit(pictured: SimpleNamespace) -> None:
    _, even = drawn(pictured.workspace, policy(pictured.root, "tail = 0"))
    assert even == pytest.approx(dict.fromkeys(KINDS, 0.25))
    _, root = drawn(pictured.workspace, policy(pictured.root, "tail = 0.5"))
    total = sum(n**0.5 for n in KINDS.values())
    assert root == pytest.approx({k: n**0.5 / total for k, n in KINDS.items()})
    _, limited = drawn(pictured.workspace, policy(pictured.root, "tail = 0\nmost = 1.5"))  # 2 for the rare ones without
    weights = {"dog": 0.5 * 8, "car": 1.0 * 4, "cake": 1.5 * 2, "thing": 1.5 * 2}
    assert limited == pytest.approx({k: w / sum(weights.values()) for k, w in weights.items()})


@pytest.mark.parametrize("rows", [1, 5])
def test_parts_of_a_pool_give_the_files_of_the_whole(
    pictured: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    rule = policy(pictured.root, "quotas = { food = 0.5 }")
    scorers = configure(rule)[0]
    whole = judge(pictured.workspace, rule, scorers)
    monkeypatch.setattr(judging, "_PART", rows)
    parts = judge(pictured.workspace, rule, scorers)
    assert parts.counts == whole.counts and parts.funnel.equals(whole.funnel)
    for name in ("decisions", "stages", "admitted"):
        assert whole.read(name).num_rows > 0
        assert parts.path(name).read_bytes() == whole.path(name).read_bytes()
