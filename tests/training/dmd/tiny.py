"""A tiny recipe for the tests of distillation."""

from __future__ import annotations

from training.dmd.recipe import DMDRecipe

TINY = DMDRecipe(
    name="test", steps=2, side=32, batch=4, learning_rate=1e-3, fake_learning_rate=1e-3, fake_updates=2,
    sigmas=(1.0, 0.8, 0.4), checkpoint_every=1, final_learning_rate=0.5,
)  # fmt: skip
