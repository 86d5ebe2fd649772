"""Decontamination: texts near an evaluation prompt."""

from __future__ import annotations

import pytest

from flywheel.remedies.held_out import HeldOut
from tests.flywheel.remedies.cards import SUITE


@pytest.mark.parametrize(
    "text, near",
    [
        ("An old lighthouse-keeper reads, by lamp light!", True),
        ("an old lighthouse keepers reads by lamp light", True),
        ("by lamp light an old lighthouse keeper reads", True),
        ("an old sailor reads by lamp light", False),
        ('a card with "APPLE" written in red', True),
        ('the word "APPLE" in blue letters on a white card', False),
    ],
)
def test_near_neighbours_of_evaluation_prompts(text: str, near: bool):
    assert (HeldOut(p.text for p in SUITE).near(text) is not None) is near
