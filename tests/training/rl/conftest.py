"""Prompts of the RL tests."""

from __future__ import annotations

import pytest

from tests.training.rl_parts import prompts


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    return prompts(folder, 8), prompts(folder, 3, first=20)
