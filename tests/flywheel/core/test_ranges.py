"""Ranges of settings: what is outside is one sentence, and no number of a preset or recipe is without a range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, get_args, get_type_hints

import pytest

from curation.sources.urls import Fetching
from flywheel import presets
from flywheel.core.errors import UsageError
from flywheel.core.ranges import MOST, Above, Count, Share, Span, require_ranges, spans, unusable
from training.dmd.recipe import DMDRecipe
from training.recipes import Recipe, Stage
from training.rl.recipe import RLRecipe
from training.vae.training import VAERecipe

SECTIONS = (
    presets.Training, presets.Trainer, presets.Evaluation, presets.Attribution, presets.Plan, presets.Review,
    presets.Rewards, presets.Enhancer, presets.Distil, presets.Gate, Fetching,
)  # fmt: skip
CHECKED_OTHERWISE = {"hidden", "sigmas", "window", "stages"}


@dataclass(frozen=True)
class Settings:
    share: Share = 0.5
    count: Count = 1
    rate: Above = 1.0
    pair: Annotated[tuple[float, float], Span(0, 1, below=True)] = (0.0, 0.9)
    table: Annotated[Mapping[str, float], Span(0)] = field(default_factory=dict)
    name: str = ""
    names: tuple[str, ...] = ()
    on: bool = False

    def __post_init__(self) -> None:
        require_ranges(self, "house.")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"share": 1.5}, "house.share is 1.5: give a number from 0 to 1"),
        ({"share": float("nan")}, "house.share is nan: give a number from 0 to 1"),
        ({"share": "much"}, "house.share is 'much': give a number from 0 to 1"),
        ({"share": True}, "house.share is True"),
        ({"count": -1}, "house.count is -1: give a whole number of 0 or more"),
        ({"count": 1.5}, "house.count is 1.5: give a whole number"),
        ({"pair": (0.5,)}, r"house.pair is \(0.5,\): give a list of 2"),
        ({"pair": 0.5}, "house.pair is 0.5: give a list of 2"),
        ({"table": 5}, "house.table is 5: give a table"),
        ({"name": 5}, "house.name is 5: give a text"),
        ({"names": "a"}, "house.names is 'a': give a list"),
        ({"on": 1}, "house.on is 1: give true or false"),
        ({"rate": 0}, "house.rate is 0: give a number above 0"),
        ({"rate": float("inf")}, "house.rate is inf"),
        ({"pair": (0.5, 1.0)}, "house.pair is 1.0: give a number of 0 or more and below 1"),
        ({"table": {"a": -1.0}}, r"house.table.a is -1.0: give a number of 0 or more"),
    ],
)
def test_what_is_outside_is_named(wrong: dict, told: str) -> None:
    with pytest.raises(UsageError, match=f"^{told}"):
        Settings(**wrong)
    assert Settings(share=1, count=0, rate=1e-9, pair=(0, 0.99), table={"a": 0})


def test_what_no_number_can_be_is_found_at_any_depth() -> None:
    odd = {"a": [1, {"b": float("nan")}], "c": 2.0**60, "d": {"e": -float("inf")}, "f": True, "g": "nan", "h": MOST}
    assert [".".join(place) for place, _ in unusable(odd)] == ["a.1.b", "c", "d.e"]
    assert [fault for _, fault in unusable({"x": float("nan")})] == [
        f"x is nan: give a finite number of at most {MOST}"
    ]


def _has_numbers(hint: object) -> bool:
    return hint in (int, float) or any(map(_has_numbers, get_args(hint)))


@pytest.mark.parametrize("kind", [*SECTIONS, Recipe, Stage, RLRecipe, DMDRecipe, VAERecipe])
def test_every_number_has_a_range(kind: type) -> None:
    hints = get_type_hints(kind)
    numbers = {f.name for f in fields(kind) if _has_numbers(hints[f.name])}
    assert numbers - spans(kind).keys() <= CHECKED_OTHERWISE
