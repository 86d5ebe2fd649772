"""Which autoencoder a run has: fitted, or trained on the data first."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from flywheel.core.errors import UsageError
from tests.training.tiny_runs import TINY, run
from tests.training.vae.tiny import SMALL
from training.data.plan import DataPlan, MixSource
from training.models.autoencoder import fit
from training.models.vae import VAE
from training.vae import training as vae_training
from training.vae.autoencoding import choose_autoencoder, fit_autoencoder


def test_autoencoder_is_fitted_on_targets_and_references(snapshot):
    plan = DataPlan([MixSource(manifest=snapshot)], batch=TINY.batch, t2i_share=0.9, seed=0)
    fitted, again = fit_autoencoder(plan, TINY), fit_autoencoder(plan, TINY)
    assert fitted.fingerprint == again.fingerprint
    assert (fitted.channels, fitted.factor) == (16, 8)


def test_a_recipe_trains_its_own(tmp_path, snapshot, monkeypatch):
    monkeypatch.setitem(vae_training.VAE_RECIPES, "tiny", SMALL)
    recipe = TINY.change(autoencoder="tiny-vae", channels=8, factor=16)
    trained = run(tmp_path / "a", snapshot, recipe=recipe, steps=2)
    assert trained.autoencoder().fingerprint == VAE.open(str(tmp_path / "a" / "vae" / "final")).fingerprint
    child = run(tmp_path / "b", snapshot, recipe=recipe, steps=1, init=trained.path)
    assert child.autoencoder().fingerprint == trained.autoencoder().fingerprint
    assert not (tmp_path / "b" / "vae").exists()
    with pytest.raises(UsageError, match="trained on latents of tiny-vae, the recipe names patch"):
        run(tmp_path / "c", snapshot, recipe=TINY, steps=1, init=trained.path)


def test_an_import_brings_its_autoencoder_whatever_a_recipe_would_make(tmp_path):
    theirs = fit([torch.rand(4, 3, 32, 32)], channels=8, factor=16)
    start = SimpleNamespace(
        path=tmp_path, autoencoder=lambda: theirs, config={"recipe": {"name": "imported"}, "imported": {}}
    )
    for made in ("patch", "tiny-vae"):
        recipe = TINY.change(autoencoder=made, channels=8, factor=16)
        assert choose_autoencoder(lambda: pytest.fail("nothing is made"), recipe, start, tmp_path) is theirs
    with pytest.raises(UsageError, match="change channels and factor in the recipe"):
        choose_autoencoder(lambda: pytest.fail("nothing is made"), TINY, start, tmp_path)
