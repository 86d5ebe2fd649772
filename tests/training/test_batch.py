"""How a global batch is divided into forward passes."""

from __future__ import annotations

import pytest
import torch

from tests.training.snapshots import card_rows, write_snapshot
from tests.training.tiny_models import randomised, tiny_processor, tiny_qwen3vl
from tests.training.tiny_runs import TINY
from training.batch import batch_loss, rows_at_once
from training.data.loader import Loader
from training.data.plan import DataPlan, MixSource
from training.initial import build_model
from training.models.condition import Cached
from training.models.encoders import load_condition_encoder
from training.models.qwen3vl import Qwen3VL
from training.phase import prepare_with, texts_with
from training.vae.autoencoding import fit_autoencoder


def test_a_layout_says_how_many_rows_go_at_once(snapshot):
    plan = DataPlan([MixSource(manifest=snapshot)], batch=TINY.batch, t2i_share=0.5, seed=0)
    by_references = {plan.shards[rows[0].shard].shape[2]: rows[0] for rows in plan.batch(0)}
    recipe = TINY.change(micro_tokens=64)  # 32 pixels are 4×4 latent tokens; an edit has as many again
    assert rows_at_once(plan, by_references[0], recipe) == 4
    assert rows_at_once(plan, by_references[1], recipe) == 2
    assert rows_at_once(plan, by_references[1], TINY.change(micro_tokens=1)) == 1
    assert rows_at_once(plan, by_references[1], TINY) == 0


@pytest.fixture(scope="module")
def reader() -> Qwen3VL:
    """An encoder that looks at references."""
    processor = tiny_processor()
    return Qwen3VL(tiny_qwen3vl(processor), processor)


@pytest.mark.parametrize(
    ("text_tokens", "task", "dropout", "looks"),
    [(16, "t2i", 0.0, False), (0, "t2i", 0.5, False), (0, "ti2i", 0.5, False), (0, "ti2i", 0.5, True)],
)
def test_a_rows_loss_does_not_depend_on_its_mates(tmp_path, reader, text_tokens, task, dropout, looks):
    """Neither on their captions, nor references, nor on which of them are dropped."""
    rows = card_rows(8, task=task)
    for row in rows[::4]:
        row["caption"] += (
            " on a plain light card, a very simple flat drawing with nothing else in it, seen from the front"
        )
    recipe = TINY.change(text_tokens=text_tokens, dropout=dropout)
    mix = [MixSource(manifest=write_snapshot(tmp_path, [{"rows": rows}]))]
    plan = DataPlan(mix, batch={64: 8}, t2i_share=float(task == "t2i"), seed=0)
    encoder = Cached(reader if looks else load_condition_encoder())
    loader = Loader(
        plan,
        prepare_with(fit_autoencoder(plan, recipe)),
        texts=texts_with(encoder),
        encode=encoder.encode,
        reference_pixels=looks,
        resolution=recipe.resolution,
    )
    model, null, (batch,) = (
        randomised(build_model(recipe, encoder, seed=0), std=0.1),
        encoder.encode([""])[0],
        plan.batch(0),
    )
    with torch.no_grad():
        together = batch_loss(model, loader.gather(batch), null, recipe, 5)
        alone = torch.cat([batch_loss(model, loader.gather([row]), null, recipe, 5) for row in batch])
        short = batch_loss(model, loader.gather(batch), null, recipe.change(text_tokens=64), 5)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(together, short, rtol=1e-5)  # the place of the target does change a loss
