"""Where tokens are: the layout of a sequence, MSRoPE positions and their rotary tables, fixed grid features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

Layout = tuple[int | tuple[int, int], ...]
"""Token sequence of every row of a batch: an int is a run of text tokens, (h, w) an image block in latent tokens.

The last entry is the target image; everything before it is the condition (the prefix).
"""


def tokens(segment: int | tuple[int, int]) -> int:
    """Number of tokens of one layout entry."""
    return segment if isinstance(segment, int) else segment[0] * segment[1]


def positions(layout: Layout) -> Tensor:
    """MSRoPE positions, int64 [S, 3] (frame, row, column).

    A text token advances one position on all three axes. An image block keeps the frame axis at the position reached
    and lays its tokens on a grid centred on zero; afterwards the position advances by max(h, w).
    """
    parts, position = [], 0
    for segment in layout:
        if isinstance(segment, int):
            parts.append(torch.arange(position, position + segment)[:, None].expand(-1, 3))
            position += segment
        else:
            h, w = segment
            rows, columns = torch.arange(h) - (h - h // 2), torch.arange(w) - (w - w // 2)
            grid = torch.cartesian_prod(rows, columns).reshape(-1, 2)
            parts.append(torch.cat([torch.full((h * w, 1), position), grid], dim=1))
            position += max(h, w)
    return torch.cat(parts)


def text_length(layout: Layout) -> int:
    """Number of text tokens."""
    return sum(segment for segment in layout if isinstance(segment, int))


def target(layout: Layout) -> tuple[int, int]:
    """(h, w) of the target image. Errors: `ValueError` for a layout that ends with text."""
    if isinstance(layout[-1], int):
        raise ValueError(f"layout {layout} must end with the target image")
    return layout[-1]


def segment_bounds(layout: Layout) -> list[tuple[int, int]]:
    """(start, end) of every layout entry, in tokens."""
    ends = [0]
    for segment in layout:
        ends.append(ends[-1] + tokens(segment))
    return list(pairwise(ends))


@lru_cache(maxsize=64)
def rotary(layout: Layout, axes: tuple[int, int, int], theta: float) -> tuple[Tensor, Tensor]:
    """Cosines of the rotary angles, twice, and sines, the first half negated: float32 [S, E] each, for `heads`."""
    where = positions(layout).float()
    angles = [
        torch.outer(where[:, axis], theta ** -(torch.arange(0, dim, 2, dtype=torch.float32) / dim))
        for axis, dim in enumerate(axes)
    ]
    angle = torch.cat(angles, dim=1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)


def rotary_by_row(
    layout: Layout, text_lengths: Sequence[int] | None, axes: tuple[int, int, int], theta: float
) -> tuple[Tensor, Tensor]:
    """As `rotary`, but each row's target follows that row's own text: [B, S, E], or [S, E] where all are equally long.

    text_lengths: text tokens of each row, at most those of the layout; None: those of the layout.
    """
    longest, last_text = text_length(layout), len(layout) - 2  # the run of text before the target is the padded one
    if text_lengths is None or all(length == longest for length in text_lengths):
        return rotary(layout, axes, theta)
    count, padded, tables = tokens(layout[-1]), layout[last_text], []
    if not isinstance(padded, int):
        raise ValueError(f"layout {layout} must have its text right before the target")
    whole = rotary(layout, axes, theta)
    for length in text_lengths:
        own = rotary((*layout[:last_text], padded - (longest - length), layout[-1]), axes, theta)
        tables.append([torch.cat([table[:-count], row[-count:]]) for table, row in zip(whole, own, strict=True)])
    cos, sin = (torch.stack(parts) for parts in zip(*tables, strict=True))
    return cos, sin


@lru_cache(maxsize=64)
def grid_features(h: int, w: int, width: int) -> Tensor:
    """Sines and cosines of row and column, wavelengths 2 to 32 tokens, float32 [h·w, width]."""
    frequencies = math.pi * 16 ** -torch.linspace(0, 1, width // 4)
    rows = torch.outer(torch.arange(h) - (h - 1) / 2, frequencies)
    columns = torch.outer(torch.arange(w) - (w - 1) / 2, frequencies)
    by_row = torch.cat([rows.sin(), rows.cos()], dim=1)[:, None].expand(h, w, -1)
    by_column = torch.cat([columns.sin(), columns.cos()], dim=1)[None].expand(h, w, -1)
    return torch.cat([by_row, by_column], dim=2).reshape(h * w, width)
