"""Attention: text causal, image blocks bidirectional inside, padding unseen.

On a CPU it is computed by segments. On a GPU, where a mask would keep SDPA from its fast kernels, FlexAttention
computes what needs one. FlexAttention has no gradients on a CPU.

Shape suffixes: B batch, S tokens, H heads, E head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.models.fused import beginnings
from training.models.positions import Layout, segment_bounds, tokens

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(queries, keys, values) → attended values, [B, S, H, E] each."""


def attend_block_causal(layout: Layout, valid_BS: Tensor | None, device: torch.device) -> Attend:
    """Attention under (query ≥ key or same image block) and key valid, of a sequence with that layout."""
    masked = len(layout) > 2 or (valid_BS is not None and len(layout) > 1)  # a leading text alone needs none
    if device.type == "cuda" and masked:
        return partial(flex_block_causal, layout=layout, valid_BS=valid_BS, kernel=_compiled_flex())
    return partial(block_causal_attention, layout=layout, valid_BS=valid_BS)


def attend_valid(valid_BS: Tensor | None) -> Attend:
    """Attention of any queries to every key that is valid; None: to every key."""
    if valid_BS is None:
        return attention
    if valid_BS.device.type == "cuda":
        return partial(flex_valid, valid_BS=valid_BS, kernel=_compiled_flex())
    return partial(attention, mask=valid_BS[:, None, None])


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


# FlexAttention ------------------------------------------------------------------------------------------------------
def flex_block_causal(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, valid_BS: Tensor | None, kernel: Callable[..., Any]
) -> Tensor:
    """As `block_causal_attention`, in one call that skips what no query of a tile sees. kernel: `flex_attention`."""
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    seen = _block_mask(layout, q.device)
    return kernel(*heads_first, score_mod=_only_valid(valid_BS), block_mask=seen).transpose(1, 2)


def flex_valid(q: Tensor, k: Tensor, v: Tensor, valid_BS: Tensor, kernel: Callable[..., Any]) -> Tensor:
    """As `attention` under a mask of valid keys."""
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    return kernel(*heads_first, score_mod=_only_valid(valid_BS)).transpose(1, 2)


def _only_valid(valid_BS: Tensor | None) -> Callable[..., Tensor] | None:
    """Hides padding as a change of scores, so that the mask's tiles depend on the layout alone and are found once."""
    if valid_BS is None:
        return None

    def score(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return torch.where(valid_BS[b, key], score, -float("inf"))

    return score


@lru_cache(maxsize=64)
def _block_mask(layout: Layout, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    bounds = segment_bounds(layout)
    total = bounds[-1][1]
    image = torch.zeros(total, dtype=torch.int32, device=device)  # 0: text
    for number, ((start, end), segment) in enumerate(zip(bounds, layout, strict=True), 1):
        if not isinstance(segment, int):
            image[start:end] = number

    def seen(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) | ((image[query] == image[key]) & (image[query] > 0))

    return create_block_mask(seen, None, None, total, total, device=device)


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)
