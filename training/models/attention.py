"""Attention by segments: text causal, image blocks bidirectional inside.

Shape suffixes: B batch, S tokens, H heads, E head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.models.fused import beginnings
from training.models.positions import Layout, segment_bounds, tokens


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """Softmax attention of [B, S, H, E] tensors; `mask` broadcasts to [B, H, queries, keys]."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal).transpose(1, 2)


def block_causal_attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout, valid_BS: Tensor | None) -> Tensor:
    """Attention under (query ≥ key or same image block) and key valid, one exact call per segment.

    No dense S×S mask: an image block sees every key up to its own end; a text run needs a triangle only on itself.
    Padding is on the right of a text run, so a leading run needs no mask: its valid queries never reach its padding.
    """
    bounds, outputs = segment_bounds(layout), []
    ends = [end for _, end in bounds]
    parts = zip(q.split([tokens(s) for s in layout], dim=1), beginnings(k, ends), beginnings(v, ends), strict=True)
    for (start, end), segment, part in zip(bounds, layout, parts, strict=True):
        is_text = isinstance(segment, int)
        if is_text and start == 0:
            outputs.append(attention(*part, causal=True))
            continue
        mask = None if valid_BS is None else valid_BS[:, None, None, :end]
        if is_text:
            triangle = torch.ones(end - start, end, dtype=torch.bool, device=q.device).tril(start)
            mask = triangle if mask is None else mask & triangle
        outputs.append(attention(*part, mask))
    return torch.cat(outputs, dim=1)
