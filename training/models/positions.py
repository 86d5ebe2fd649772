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


_CPU = torch.device("cpu")


@lru_cache(maxsize=64)
def rotary(
    layout: Layout, axes: tuple[int, int, int], theta: float, device: torch.device = _CPU
) -> tuple[Tensor, Tensor]:
    """Cosines of the rotary angles, twice, and sines, the first half negated: float32 [S, E] each, for `heads`."""
    where = positions(layout).float()
    angles = [torch.outer(where[:, axis], _frequencies(dim, theta)) for axis, dim in enumerate(axes)]
    cos, sin = _doubled(torch.cat(angles, dim=1))
    return cos.to(device), sin.to(device)


def _frequencies(dim: int, theta: float) -> Tensor:
    return theta ** -(torch.arange(0, dim, 2, dtype=torch.float32) / dim)


def _doubled(angle: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotary_by_row(
    layout: Layout,
    text_lengths: Sequence[int] | None,
    axes: tuple[int, int, int],
    theta: float,
    device: torch.device = _CPU,
) -> tuple[Tensor, Tensor]:
    """As `rotary`, but each row's target follows that row's own text: [B, S, E], or [S, E] where all are equally long.

    text_lengths: text tokens of each row, at most those of the layout; None: those of the layout.
    """
    longest = text_length(layout)
    whole = rotary(layout, axes, theta, device)
    if text_lengths is None or all(length == longest for length in text_lengths):
        return whole
    if not isinstance(layout[-2], int):  # the run of text before the target is the padded one
        raise ValueError(f"layout {layout} must have its text right before the target")
    # Only the frame of a target depends on the text before it: the first angles of its table.
    count, width, half = tokens(layout[-1]), axes[0] // 2, sum(axes) // 2
    frames = int(positions(layout)[-1, 0]) - longest + torch.tensor(text_lengths)
    angles = torch.outer(frames.float(), _frequencies(axes[0], theta))
    tables = []
    for table, own in zip(whole, _doubled(angles), strict=True):
        placed = table[-count:].repeat(len(frames), 1, 1)
        for start, part in zip((0, half), own.to(device)[:, None].chunk(2, dim=-1), strict=True):
            placed[..., start : start + width] = part
        tables.append(torch.cat([table[:-count].expand(len(frames), -1, -1), placed], dim=1))
    return tables[0], tables[1]


@lru_cache(maxsize=64)
def grid_features(h: int, w: int, width: int) -> Tensor:
    """Sines and cosines of row and column, wavelengths 2 to 32 tokens, float32 [h·w, width]."""
    frequencies = math.pi * 16 ** -torch.linspace(0, 1, width // 4)
    rows = torch.outer(torch.arange(h) - (h - 1) / 2, frequencies)
    columns = torch.outer(torch.arange(w) - (w - 1) / 2, frequencies)
    by_row = torch.cat([rows.sin(), rows.cos()], dim=1)[:, None].expand(h, w, -1)
    by_column = torch.cat([columns.sin(), columns.cos()], dim=1)[None].expand(h, w, -1)
    return torch.cat([by_row, by_column], dim=2).reshape(h * w, width)
