"""Attention by segments equals attention under the dense mask that it never builds."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from training.models.attention import attention, block_causal_attention, flex_block_causal, flex_valid
from training.models.positions import Layout, segment_bounds


def dense(layout: Layout, valid: torch.Tensor) -> torch.Tensor:
    """[B, 1, S, S]: a query sees valid keys before it, and all of its own image block."""
    total = valid.shape[1]
    seen = torch.ones(total, total, dtype=torch.bool).tril()
    for (start, end), segment in zip(segment_bounds(layout), layout, strict=True):
        if not isinstance(segment, int):
            seen[start:end, start:end] = True
    return seen & valid[:, None, None]


@pytest.mark.parametrize("layout", [(5, (2, 3)), ((2, 2), 4, (2, 2)), (2, (1, 2), 3, (2, 2))])
def test_segments_see_what_the_dense_mask_shows(layout: Layout):
    torch.manual_seed(0)
    total = segment_bounds(layout)[-1][1]
    q, k, v = torch.randn(3, 2, total, 2, 8)
    valid = torch.ones(2, total, dtype=torch.bool)
    text = next(place for place, part in reversed(list(enumerate(layout))) if isinstance(part, int))
    valid[1, segment_bounds(layout)[text][1] - 1] = False  # the last text token of row 1 is padding
    ours, expected = block_causal_attention(q, k, v, layout, valid), attention(q, k, v, dense(layout, valid))
    torch.testing.assert_close(ours[valid], expected[valid])
    assert not torch.allclose(ours[valid], attention(q, k, v)[valid])


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("layout", [(5, (2, 3)), (2, (1, 2), 3, (2, 2)), (130, (8, 10))])
def test_what_a_gpu_computes_sees_the_same(layout: Layout):
    """FlexAttention as a GPU calls it, uncompiled; without gradients, which it has not on a CPU."""
    torch.manual_seed(0)
    total, target = segment_bounds(layout)[-1][1], segment_bounds(layout)[-1][0]
    q, k, v = torch.randn(3, 2, total, 2, 16)
    valid = torch.ones(2, total, dtype=torch.bool)
    valid[1, target - 1] = False
    for padding in (valid, None):
        ours = flex_block_causal(q, k, v, layout, padding, flex_attention)
        mask = dense(layout, valid if padding is not None else torch.ones_like(valid))
        torch.testing.assert_close(ours[valid], attention(q, k, v, mask)[valid])
    ours = flex_valid(q[:, target:], k, v, valid, flex_attention)
    torch.testing.assert_close(ours, attention(q[:, target:], k, v, valid[:, None, None]))
