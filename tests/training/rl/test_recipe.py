"""Recipes of reinforcement learning: weights by category, and values that cannot work."""

from __future__ import annotations

import pytest

from flywheel.core.errors import UsageError
from training.rl.recipe import RL_RECIPES, WATCHERS, rl_recipe


def test_a_category_has_weights_of_its_own_or_those_of_all():
    mine = rl_recipe("rl-tiny", weights={"*": {"a": 1.0, "b": 0.0}, "text": {"c": 0.5}}, proxies={"a": "c"})
    assert [mine.weight("object", r) for r in "abc"] == [1.0, 0.0, 0.0]
    assert [mine.weight("text", r) for r in "abc"] == [0.0, 0.0, 0.5]
    assert mine.rewards == ("a", "c") and mine.proxy("a", ("a", "c")) == "c" and mine.proxy("b", ("a", "b")) is None


def test_a_reward_is_watched_by_another_verifier_that_is_not_trained_on():
    assert all(name not in watchers and "natural" in watchers for name, watchers in WATCHERS.items())
    ocr = rl_recipe("rl-tiny", weights={"*": {"ocr": 1.0}})
    assert ocr.proxy("ocr", ("ocr", "natural", "alignment")) == "alignment"
    assert ocr.proxy("ocr", ("ocr", "natural")) == "natural" and ocr.proxy("ocr", ("ocr",)) is None
    both = rl_recipe("rl-tiny", weights={"*": {"ocr": 1.0, "alignment": 1.0}})
    assert both.proxy("ocr", ("ocr", "alignment", "natural")) == "natural"
    assert both.proxy("ocr", ("ocr", "alignment")) == "alignment"  # better than none


def test_named_recipes_train_on_something():
    for name, known in RL_RECIPES.items():
        assert known.name == name == known.to_dict()["name"] and known.rewards
        assert sum(known.window) < known.sampling_steps


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"algorithm": "ppo"}, "algorithm is 'ppo': use one of grpo, guard, nft"),
        ({"step": "ode"}, "step is 'ode'"),
        ({"guidance": "all"}, "guidance is 'all'"),
        ({"window": [6, 4], "sampling_steps": 10}, r"window \(6, 4\) does not fit 10 steps"),
        ({"window": [0, 0]}, "does not fit"),
        ({"window": [-1, 2]}, "does not fit"),
        ({"group": 1}, "at least two pictures"),
        ({"proxies": {"ocr": "ocr"}}, "'ocr' cannot watch itself"),
    ],
)
def test_what_cannot_work_is_named(changes: dict, told: str):
    with pytest.raises(UsageError, match=told):
        rl_recipe("rl-tiny", **changes)
