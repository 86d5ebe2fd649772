"""Held-out rows: the same loss whenever it is asked for, and pictures drawn from their captions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from tests.training.snapshots import card_rows, write_snapshot
from tests.training.tiny_models import randomised
from tests.training.tiny_runs import TINY
from training.data.loader import Loader
from training.data.plan import DataPlan, MixSource
from training.initial import build_model
from training.models.encoders import load_condition_encoder
from training.phase import prepare_with, texts_with
from training.vae.autoencoding import fit_autoencoder
from training.validation import draw_held_out, validation_loss


def planned(manifest: Path) -> DataPlan:
    return DataPlan([MixSource(manifest=manifest)], batch={64: 4}, t2i_share=1.0, seed=0)


@pytest.fixture(scope="module")
def parts(snapshot):
    """A loader of the snapshot, and a model whose every weight matters."""
    plan, encoder = (
        DataPlan([MixSource(manifest=snapshot)], batch={64: 4}, t2i_share=0.5, seed=0),
        load_condition_encoder(),
    )
    autoencoder = fit_autoencoder(plan, TINY)
    loader = Loader(
        plan, prepare_with(autoencoder), texts=texts_with(encoder), encode=encoder.encode, resolution=TINY.resolution
    )
    model = randomised(build_model(TINY, encoder, seed=0), std=0.05)
    return SimpleNamespace(loader=loader, model=model, autoencoder=autoencoder, encoder=encoder)


def test_the_loss_is_a_function_of_the_weights_and_the_seed(parts):
    first = validation_loss(parts.model, parts.loader, TINY, seed=3)
    assert first is not None and first > 0
    assert validation_loss(parts.model, parts.loader, TINY, seed=3) == first
    assert validation_loss(parts.model, parts.loader, TINY, seed=4) != first
    small = validation_loss(parts.model, parts.loader, TINY.change(micro_tokens=40), seed=3)
    assert small == pytest.approx(first, abs=1e-5)


def test_too_little_data_holds_nothing_out(parts, tmp_path):
    plan = DataPlan(
        [MixSource(manifest=write_snapshot(tmp_path, [{"rows": card_rows(8)}]))], batch={64: 4}, t2i_share=0.5, seed=0
    )
    loader = Loader(plan, parts.loader.prepare, resolution=TINY.resolution)
    assert validation_loss(parts.model, loader, TINY, seed=3) is None


def test_held_out_rows_are_drawn(parts, tmp_path):
    recipe = TINY.change(sample_rows=2).to_dict()
    config = {"recipe": recipe, "model": parts.model.config.to_dict(), "seed": 0}
    config |= {"condition": {"tokens": TINY.text_tokens}}
    weights = {name: p.detach() for name, p in parts.model.named_parameters()}
    draw_held_out(
        tmp_path / "grid.png", weights, parts.loader, parts.autoencoder, parts.encoder, config, torch.device("cpu")
    )
    with Image.open(tmp_path / "grid.png") as drawn:
        assert drawn.width >= 2 * 128 and drawn.convert("L").getextrema()[0] < 255
    none = config | {"recipe": recipe | {"sample_rows": 0}}
    draw_held_out(
        tmp_path / "none.png", weights, parts.loader, parts.autoencoder, parts.encoder, none, torch.device("cpu")
    )
    assert not (tmp_path / "none.png").exists()
