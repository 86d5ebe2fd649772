"""The demo's recipes, by the capability that they teach."""

from __future__ import annotations

import random

import pytest

from flywheel.core.plugins import plugins
from flywheel.demo.recipes import RECIPES


def test_the_package_declares_them() -> None:
    assert plugins("flywheel.recipes")["cards"] is RECIPES


@pytest.mark.parametrize("capability", RECIPES)
def test_a_sample_is_checked_for_what_it_teaches(capability: str) -> None:
    for make in RECIPES[capability]:
        recipe = make()
        sample = recipe.render(recipe.variants[0], random.Random(0))
        assert capability in {check["capability"] for check in sample.checks}
        assert sample.recipe == recipe.name
