"""Weights to diffusers' names and back."""

from __future__ import annotations

import torch

from tests.training.models.test_mmdit import CONFIG, strong
from training.models.convert import diffusers_config, from_diffusers, from_diffusers_config, to_diffusers


def test_conversion_round_trip():
    state = strong(CONFIG.build()).state_dict()
    back = from_diffusers(to_diffusers(state, CONFIG), CONFIG)
    assert state.keys() == back.keys()
    assert all(torch.equal(state[name], back[name]) for name in state)
    assert from_diffusers_config(diffusers_config(CONFIG)) == CONFIG
