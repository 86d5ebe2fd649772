"""How a global batch is divided into forward passes."""

from __future__ import annotations

from tests.training.tiny_runs import TINY
from training.batch import rows_at_once
from training.data.plan import DataPlan, MixSource


def test_a_layout_says_how_many_rows_go_at_once(snapshot):
    plan = DataPlan([MixSource(manifest=snapshot)], batch=TINY.batch, t2i_share=0.5, seed=0)
    by_references = {plan.shards[rows[0].shard].shape[2]: rows[0] for rows in plan.batch(0)}
    recipe = TINY.change(micro_tokens=64)  # 32 pixels are 4×4 latent tokens; an edit has as many again
    assert rows_at_once(plan, by_references[0], recipe) == 4
    assert rows_at_once(plan, by_references[1], recipe) == 2
    assert rows_at_once(plan, by_references[1], TINY.change(micro_tokens=1)) == 1
    assert rows_at_once(plan, by_references[1], TINY) == 0
