"""MMDiT: one stream of text and image tokens, block-causal, multiplicatively modulated.

Architecture: Qwen-Image-2.0 report (one shared stream, MSRoPE, QK-RMSNorm, modulation without bias, SwiGLU); where the
report is silent, the open 2.1 release. Shape suffixes: B batch, S tokens, P prefix tokens, N target tokens, D width,
H heads, E head width, C latent channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.attention import attend_block_causal, attend_valid
from training.models.fused import Linear, gated_add, heads, modulated_norm, swiglu
from training.models.positions import Layout, grid_features, rotary_by_row, target, text_length, tokens

Factors = tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]
"""Modulation of a block: scales and gates of its two branches, one tensor [B, 1, D] for each part of the sequence."""

TIME_FEATURES = 256


@dataclass(frozen=True, kw_only=True)
class MMDiTConfig:
    """Shape and switches of an `MMDiT`. Patch size is 1: a latent pixel is a token.

    `attention`: "block_causal" (text causal, image blocks bidirectional inside) or "full".
    `condition_time`: "zero" modulates conditions with t = 0, which makes their K/V independent of t; "real" uses t.
    `modulation`: "shared" by all blocks, or "per_block".
    `grid`: strength of fixed sine-cosine positions added to image tokens; 0 is none, as in 2.1. Ours, for models that
    see too few images to learn absolute positions from MSRoPE, which is relative between image tokens.
    """

    channels: int
    condition_dim: int
    depth: int
    heads: int
    head_dim: int
    rope_axes: tuple[int, int, int]
    mlp_ratio: int = 3
    rope_theta: float = 10_000.0
    eps: float = 1e-6
    grid: float = 0.0
    attention: Literal["block_causal", "full"] = "block_causal"
    condition_time: Literal["zero", "real"] = "zero"
    modulation: Literal["shared", "per_block"] = "shared"

    def __post_init__(self) -> None:
        if sum(self.rope_axes) != self.head_dim or any(axis % 2 for axis in self.rope_axes):
            raise ValueError(f"rope_axes {self.rope_axes} must be even and sum to head_dim {self.head_dim}")
        for name, allowed in _SWITCHES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}: use one of {', '.join(allowed)}")

    @property
    def width(self) -> int:
        """Width of the token stream."""
        return self.heads * self.head_dim

    @property
    def cacheable(self) -> bool:
        """Do the conditions' K/V stay the same over all denoising steps?"""
        return self.attention == "block_causal" and self.condition_time == "zero"

    def build(self) -> MMDiT:
        """A freshly initialised model."""
        return MMDiT(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MMDiTConfig:
        """The inverse of `to_dict`, also after a trip through JSON."""
        return cls(**{**values, "rope_axes": tuple(values["rope_axes"])})


_SWITCHES = {
    "attention": ("block_causal", "full"),
    "condition_time": ("zero", "real"),
    "modulation": ("shared", "per_block"),
}

PRESETS: dict[str, MMDiTConfig] = {
    "tiny": MMDiTConfig(
        channels=48, condition_dim=768, depth=4, heads=4, head_dim=32, rope_axes=(8, 12, 12), rope_theta=100.0, grid=0.7
    ),
    "tiny-2.1": MMDiTConfig(
        channels=64, condition_dim=128, depth=4, heads=4, head_dim=32, rope_axes=(8, 12, 12)
    ),  # of the released layout, so that diffusers opens it
    "small": MMDiTConfig(channels=64, condition_dim=1024, depth=12, heads=12, head_dim=64, rope_axes=(8, 28, 28)),
    "qwen-image-2.1": MMDiTConfig(
        channels=64, condition_dim=4096, depth=32, heads=32, head_dim=128, rope_axes=(16, 56, 56)
    ),
}


def preset(name: str, **changes: Any) -> MMDiTConfig:
    """A named configuration, with changes. Errors: `ValueError` for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"unknown MMDiT preset {name!r}: use one of {', '.join(PRESETS)}")
    return replace(PRESETS[name], **changes)


# Layers -------------------------------------------------------------------------------------------------------------
def time_features(t_B: Tensor) -> Tensor:
    """Sinusoids of t in [0, 1] (times 1000), cosines first, float32 [B, 256]."""
    half = TIME_FEATURES // 2
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float32, device=t_B.device) / half)
    angle = 1000.0 * t_B.float()[:, None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """t [B] → [B, D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = Linear(TIME_FEATURES, width)
        self.outer = Linear(width, width)

    def forward(self, t_B: Tensor) -> Tensor:
        return self.outer(F.silu(self.inner(time_features(t_B).to(self.inner.weight.dtype))))


class TextEmbedding(nn.Module):
    """Condition states [B, L, condition_dim] → [B, L, D], after a zero-centred RMSNorm."""

    def __init__(self, condition_dim: int, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.norm = nn.Parameter(torch.zeros(condition_dim))
        self.inner = Linear(condition_dim, width)
        self.outer = Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        y = F.rms_norm(states, (states.shape[-1],), self.norm + 1, self.eps)
        return self.outer(F.gelu(self.inner(y), approximate="tanh"))


class Modulation(nn.Module):
    """Time embedding [B, D] → `parts` multiplicative factors [B, 1, D]: SiLU, then one linear layer without bias."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = Linear(width, parts * width)

    def forward(self, time_BD: Tensor) -> tuple[Tensor, ...]:
        return self.linear(F.silu(time_BD))[:, None].chunk(self.parts, dim=-1)


class Block(nn.Module):
    """x += tanh(gate1)·Attn(LN(x)(1+scale1)); x += tanh(gate2)·SwiGLU(LN(x)(1+scale2)).

    Split at the attention, because the model decides which tokens attend to which.
    """

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.mlp_ratio * config.width
        self.shape = (config.heads, config.head_dim)
        self.eps = config.eps
        self.qkv = Linear(width, 3 * width)
        self.query_norm = nn.Parameter(torch.ones(config.head_dim))
        self.key_norm = nn.Parameter(torch.ones(config.head_dim))
        self.attention_out = Linear(width, width)
        self.gate_up = Linear(width, 2 * hidden)
        self.down = Linear(hidden, width)
        self.modulation = Modulation(width, 4) if config.modulation == "per_block" else None

    def factors(self, times_BD: Sequence[Tensor], shared: Factors | None) -> Factors:
        """Own or shared factors: (scales, gates, scales, gates), each with one tensor [B, 1, D] for every time."""
        if self.modulation is not None:
            return modulations(self.modulation, times_BD)
        if shared is None:
            raise ValueError("a block without a modulation of its own needs shared factors")
        return shared

    def project(
        self, x: Tensor, factors: Factors, lengths: Sequence[int], rope: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, [B, S, H, E] each. `lengths`: tokens of each of the factors."""
        qkv = self.qkv(modulated_norm(x, factors[0], lengths, self.eps)).unflatten(-1, (3, *self.shape))
        return heads(qkv, self.query_norm, self.key_norm, rope, self.eps)

    def finish(self, x: Tensor, attended_BSHE: Tensor, factors: Factors, lengths: Sequence[int]) -> Tensor:
        """Add the attention's and the feed-forward's branch."""
        _, gates1, scales2, gates2 = factors
        x = gated_add(x, self.attention_out(attended_BSHE.flatten(2)), gates1, lengths)
        hidden = swiglu(self.gate_up(modulated_norm(x, scales2, lengths, self.eps)))
        return gated_add(x, self.down(hidden), gates2, lengths)


def modulations(modulation: Modulation, times_BD: Sequence[Tensor]) -> Factors:
    """Scales and gates of the two branches at each time; the gates through tanh."""
    scale1, gate1, scale2, gate2 = zip(*(modulation(time) for time in times_BD), strict=True)
    return scale1, [g.tanh() for g in gate1], scale2, [g.tanh() for g in gate2]


# Model --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Prefix:
    """A condition's keys and values per block [B or 1, P, H, E], and which keys are valid [B or 1, P]."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    valid: Tensor | None
    layout: Layout

    def expand(self, batch: int) -> Prefix:
        """One row's prefix for `batch` rows, without copying."""

        def stretch(x: Tensor) -> Tensor:
            return x.expand(batch, *x.shape[1:])

        valid = None if self.valid is None else stretch(self.valid)
        return Prefix(tuple(map(stretch, self.keys)), tuple(map(stretch, self.values)), valid, self.layout)


class MMDiT(nn.Module):
    """Velocity of the target latents, given text states and reference latents."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.config = config
        self.image_in = Linear(config.channels, config.width)
        self.text_in = TextEmbedding(config.condition_dim, config.width, config.eps)
        self.time_in = TimeEmbedding(config.width)
        self.modulation = Modulation(config.width, 4) if config.modulation == "shared" else None
        # A ModuleList says nothing of its members' type.
        self.blocks = cast(Sequence[Block], nn.ModuleList(Block(config) for _ in range(config.depth)))
        self.scale_out = Modulation(config.width, 1)
        self.image_out = Linear(config.width, config.channels)
        nn.init.zeros_(self.image_out.weight)  # the first prediction is zero, whatever the blocks do

    def forward(
        self,
        latents_BNC: Tensor,
        t_B: Tensor,
        text_BLK: Tensor,
        layout: Layout,
        *,
        references_BRC: Tensor | None = None,
        text_valid_BL: Tensor | None = None,
        text_lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Velocity [B, N, C] of the target at time t in [0, 1] (1 is noise).

        `text_BLK`: all text states in layout order; `references_BRC`: all reference latents in layout order;
        `text_valid_BL`: False at right padding, None where there is none; `text_lengths`: text tokens after which each
        row's target stands, so that it does not depend on the longest text of the batch. Default: those of the layout.
        """
        condition, valid = self._condition(text_BLK, layout, references_BRC, text_valid_BL)
        image = self._image(latents_BNC, target(layout))
        lengths: tuple[int, ...] = (condition.shape[1], image.shape[1])
        x = torch.cat([condition, image], dim=1)
        valid = None if valid is None else F.pad(valid, (0, lengths[1]), value=True)
        rope = self._rope(layout, slice(None), x, text_lengths)
        to_valid = attend_valid(valid)
        among = to_valid if self.config.attention == "full" else attend_block_causal(layout, valid, x.device)
        time = self.time_in(t_B)
        times = (self.time_in(t_B.new_zeros(1)) if self.config.condition_time == "zero" else time, time)
        shared = None if self.modulation is None else modulations(self.modulation, times)
        for index, block in enumerate(self.blocks):
            factors = block.factors(times, shared)
            q, k, v = block.project(x, factors, lengths, rope)
            if index + 1 == len(self.blocks):  # the condition's stream is not used after the last block
                q, x, lengths = q[:, lengths[0] :], x[:, lengths[0] :], lengths[1:]
                scales1, gates1, scales2, gates2 = factors
                factors = (scales1[1:], gates1[1:], scales2[1:], gates2[1:])
            attended = (to_valid if len(lengths) == 1 else among)(q, k, v)
            x = block.finish(x, attended, factors, lengths)
        return self._output(x, time)

    def prefill(
        self,
        text_BLK: Tensor,
        layout: Layout,
        references_BRC: Tensor | None = None,
        text_valid_BL: Tensor | None = None,
    ) -> Prefix:
        """The condition, for several `decode` calls. Errors: `ValueError` unless `config.cacheable`."""
        if not self.config.cacheable:
            raise ValueError("a prefix can be kept only with attention='block_causal' and condition_time='zero'")
        x, valid = self._condition(text_BLK, layout, references_BRC, text_valid_BL)
        rope = self._rope(layout, slice(0, x.shape[1]), x)
        times = (self.time_in(torch.zeros(1, device=x.device)),)
        shared = None if self.modulation is None else modulations(self.modulation, times)
        lengths, keys, values = (x.shape[1],), [], []
        among = attend_block_causal(layout[:-1], valid, x.device)
        for index, block in enumerate(self.blocks):
            factors = block.factors(times, shared)
            q, k, v = block.project(x, factors, lengths, rope)
            keys.append(k)
            values.append(v)
            if index + 1 < len(self.blocks):  # the condition's stream is not used after the last block
                x = block.finish(x, among(q, k, v), factors, lengths)
        return Prefix(tuple(keys), tuple(values), valid, layout)

    def decode(self, latents_BNC: Tensor, t_B: Tensor, prefix: Prefix) -> Tensor:
        """Velocity [B, N, C] of the target, given a prefix."""
        x = self._image(latents_BNC, target(prefix.layout))
        batch, count = x.shape[:2]
        length = prefix.keys[0].shape[1]
        rope = self._rope(prefix.layout, slice(length, length + count), x)
        valid = None
        if prefix.valid is not None:
            valid = F.pad(prefix.valid, (0, count), value=True).expand(batch, -1)
        among = attend_valid(valid)
        time = self.time_in(t_B)
        shared = None if self.modulation is None else modulations(self.modulation, (time,))
        if prefix.keys[0].shape[0] != batch:
            prefix = prefix.expand(batch)
        for block, keys, values in zip(self.blocks, prefix.keys, prefix.values, strict=True):
            factors = block.factors((time,), shared)
            q, k, v = block.project(x, factors, (count,), rope)
            k, v = torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1)
            x = block.finish(x, among(q, k, v), factors, (count,))
        return self._output(x, time)

    def _condition(
        self, text_BLK: Tensor, layout: Layout, references_BRC: Tensor | None, text_valid_BL: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Embedded prefix [B, P, D] in layout order, and its valid keys [B, P]."""
        prefix = layout[:-1]
        text_tokens = text_length(layout)
        reference_length = sum(tokens(s) for s in prefix if not isinstance(s, int))
        reference_tokens = 0 if references_BRC is None else references_BRC.shape[1]
        if text_tokens != text_BLK.shape[1] or reference_length != reference_tokens:
            raise ValueError(
                f"layout {layout} asks for {text_tokens} text and {reference_length} reference tokens, "
                f"got {text_BLK.shape[1]} and {reference_tokens}"
            )
        runs = [s for s in prefix if isinstance(s, int)]
        blocks = [s for s in prefix if not isinstance(s, int)]
        text = iter(self.text_in(text_BLK).split(runs, dim=1))
        latents: Sequence[Tensor] = ()
        if references_BRC is not None and blocks:
            latents = references_BRC.split([tokens(s) for s in blocks], dim=1)
        images = iter([self._image(x, block) for x, block in zip(latents, blocks, strict=True)])
        x = torch.cat([next(text if isinstance(s, int) else images) for s in prefix], dim=1)
        if text_valid_BL is None:
            return x, None
        valid_runs = iter(text_valid_BL.split(runs, dim=1))
        batch = len(text_valid_BL)
        valid = [next(valid_runs) if isinstance(s, int) else text_valid_BL.new_ones(batch, tokens(s)) for s in prefix]
        return x, torch.cat(valid, dim=1)

    def _image(self, latents: Tensor, block: tuple[int, int]) -> Tensor:
        """Image tokens of one block [B, h·w, D]."""
        x = self.image_in(latents)
        if not self.config.grid:
            return x
        return x + self.config.grid * grid_features(*block, self.config.width).to(x)

    def _rope(
        self, layout: Layout, part: slice, like: Tensor, text_lengths: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        axes, theta = self.config.rope_axes, self.config.rope_theta
        cos, sin = rotary_by_row(layout, text_lengths, axes, theta, like.device)
        return cos[..., part, :].to(like), sin[..., part, :].to(like)

    def _output(self, x: Tensor, time: Tensor) -> Tensor:
        (scale,) = self.scale_out(time)
        return self.image_out(modulated_norm(x, (scale,), (x.shape[1],), self.config.eps))
