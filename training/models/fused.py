"""Layers of the MMDiT with hand-written gradients: few passes over memory, few saved tensors, fast products.

Between two matrix products a model is bound by memory traffic, and automatic differentiation keeps and re-reads every
temporary. Each function here equals its one-line formula; gradients are checked against it in the tests. torch.compile
gets the formula itself, whose passes it fuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def _spans(lengths: Sequence[int]) -> list[slice]:
    ends = [0, *accumulate(lengths)]
    return [slice(start, end) for start, end in pairwise(ends)]


# On a CPU, torch.compile replaces F.linear by this operator of oneDNN. F.linear itself calls BLAS, whose float32
# product is half as fast on an AMD processor with AVX-512.
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        to_x, to_weight = ctx.needs_input_grad
        dweight = _product(grad.flatten(0, -2).t(), x.flatten(0, -2).t()) if to_weight else None
        return _product(grad, weight.t()) if to_x else None, dweight


def _product(x: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weightᵀ: [..., K] and [N, K] → [..., N]."""
    if not _ONEDNN or x.device.type != "cpu" or not x.dtype == weight.dtype == torch.float32 or x.dim() < 2:
        return F.linear(x, weight)
    return _Linear.apply(x, weight)


class Linear(nn.Linear):
    """A linear layer without bias, by `linear`."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


class _ModulatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, lengths: Sequence[int], eps: float, *scales: Tensor) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
        for span, scale in zip(_spans(lengths), scales, strict=True):
            y[:, span].mul_(1 + scale)
        ctx.lengths = lengths
        ctx.save_for_backward(x, mean, rstd, *scales)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, *scales = ctx.saved_tensors
        if x.device.type != "cpu":
            return _norm_gradients(grad, x, mean, rstd, scales, ctx.lengths)
        dx, dscales = torch.empty_like(x), [torch.zeros_like(scale) for scale in scales]
        for span, scale, dscale in zip(_spans(ctx.lengths), scales, dscales, strict=True):
            factors = (1 + scale).to(x.dtype).expand(len(x), 1, -1)
            for row, factor in enumerate(factors.unbind()):  # the CPU's library computes both in one pass, per factor
                part = (row, span)
                dx[part], gradient, _ = torch.ops.aten.native_layer_norm_backward(
                    grad[part], x[part], x.shape[-1:], mean[part], rstd[part], factor[0], None, [True, True, False]
                )
                dscale[row if len(scale) > 1 else 0, 0] += gradient
        return dx, None, None, *dscales


def _norm_gradients(
    grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, scales: Sequence[Tensor], lengths: Sequence[int]
) -> tuple[Tensor | None, ...]:
    """As the CPU's, by few large kernels."""
    scaled = _per_segment(grad, [1 + scale for scale in scales], lengths)
    dx, _, _ = torch.ops.aten.native_layer_norm_backward(
        scaled, x, x.shape[-1:], mean, rstd, None, None, [True, False, False]
    )
    product = ((x - mean) * rstd).to(x.dtype).mul_(grad)
    dscales = [
        part.sum(1, keepdim=True).sum_to_size(scale.shape)
        for part, scale in zip(product.split(list(lengths), 1), scales, strict=True)
    ]
    return dx, None, None, *dscales


def _per_segment(x: Tensor, factors: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    """x times the factor of each segment."""
    parts = x.split(list(lengths), dim=1)
    return torch.cat([(part * factor).to(x.dtype) for part, factor in zip(parts, factors, strict=True)], dim=1)


def modulated_norm(x_BSD: Tensor, scales: Sequence[Tensor], lengths: Sequence[int], eps: float) -> Tensor:
    """LN(x)·(1 + scale), LN without affine: a scale [B or 1, 1, D] for each of the segments of `lengths` tokens."""
    if torch.compiler.is_compiling():
        normed = F.layer_norm(x_BSD, x_BSD.shape[-1:], eps=eps)
        return _per_segment(normed, [1 + scale for scale in scales], lengths)
    return _ModulatedNorm.apply(x_BSD, lengths, eps, *scales)


class _GatedAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, lengths: Sequence[int], *gates: Tensor) -> Tensor:
        out = torch.empty_like(x)
        for span, gate in zip(_spans(lengths), gates, strict=True):
            torch.addcmul(x[:, span], gate, branch[:, span], out=out[:, span])
        ctx.lengths = lengths
        ctx.save_for_backward(branch, *gates)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        branch, *gates = ctx.saved_tensors
        dbranch, dgates = torch.empty_like(branch), []
        for span, gate in zip(_spans(ctx.lengths), gates, strict=True):
            torch.mul(grad[:, span], gate, out=dbranch[:, span])
            dgates.append((grad[:, span] * branch[:, span]).sum(1, keepdim=True).sum_to_size(gate.shape))
        return grad, dbranch, None, *dgates


def gated_add(x_BSD: Tensor, branch_BSD: Tensor, gates: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    """x + gate·branch: a gate [B or 1, 1, D] for each of the segments of `lengths` tokens."""
    if torch.compiler.is_compiling():
        return x_BSD + _per_segment(branch_BSD, gates, lengths)
    return _GatedAdd.apply(x_BSD, branch_BSD, lengths, *gates)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        out = torch.empty_like(gate_up)
        dgate, dup = out.chunk(2, dim=-1)
        scratch = F.silu(gate)
        torch.mul(grad, scratch, out=dup)
        torch.mul(grad, up, out=scratch)
        torch.ops.aten.silu_backward.grad_input(scratch, gate, grad_input=dgate)
        return out


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate)·up of [..., 2·hidden] → [..., hidden]."""
    if torch.compiler.is_compiling():
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up
    return _SwiGLU.apply(gate_up)


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, query_norm: Tensor, key_norm: Tensor, cos: Tensor, sin: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, heads, width = qkv[:, :, :2], *qkv.shape[-2:]
        # Tables for every head that include the norms' weights: broadcasting a short last dimension is slow.
        weight = torch.stack([query_norm, key_norm]).to(x.dtype)  # [2, E]
        cosines = _per_head(cos.unsqueeze(-2) * weight, heads)
        sines = _per_head(sin.unsqueeze(-2) * _swapped(weight), heads)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        inverse = norm.square_().div_(width).add_(eps).rsqrt_().to(x.dtype)
        out = (x * cosines).addcmul_(_swapped(x), sines).mul_(inverse)
        ctx.save_for_backward(qkv, weight, cos, sin, inverse)
        ctx.norm_dtype = query_norm.dtype
        return out[:, :, 0], out[:, :, 1], qkv[:, :, 2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor) -> tuple[Tensor | None, ...]:
        qkv, weight, cos, sin, inverse = ctx.saved_tensors
        heads, width = qkv.shape[-2:]
        cos, sin = _per_head(cos, heads), _per_head(sin, heads)
        out, weights = torch.empty_like(qkv), []
        out[:, :, 2] = dv
        for i, grad in enumerate((dq, dk)):
            x, r, dx = qkv[:, :, i], inverse[:, :, i], out[:, :, i]
            turned = (grad * cos).addcmul_(_swapped(grad), sin, value=-1)  # gradient of the weighted, normed head
            product = turned * x
            flat = product.reshape(-1, width)
            weights.append((r.reshape(1, -1) @ flat)[0].to(ctx.norm_dtype))
            inner = (flat @ weight[i]).view(r.shape).mul_(r).mul_(r).mul_(r).div_(-width)
            torch.mul(turned.mul_(weight[i]), r, out=dx)
            dx.addcmul_(x, inner)
        return out, *weights, None, None, None


def _per_head(table: Tensor, heads: int) -> Tensor:
    """[..., E] → [..., heads, E], in memory of its own."""
    return table.unsqueeze(-2).expand(*table.shape[:-1], heads, -1).contiguous()


def _swapped(x: Tensor) -> Tensor:
    """The two halves of the last dimension, exchanged."""
    return x.roll(x.shape[-1] // 2, -1)


def heads(
    qkv_BS3HE: Tensor, query_norm: Tensor, key_norm: Tensor, rope: tuple[Tensor, Tensor], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, RMS-normed per head and rotated, and values: [B, S, H, E] each.

    `rope`: cosines twice, and sines with the first half negated, [S, E] or [B, S, E] each: x·cos + (x, halves
    exchanged)·sin turns the pairs (i, i + E/2).
    """
    if torch.compiler.is_compiling():
        query, key, value = qkv_BS3HE.unbind(2)
        cos, sin = (table.unsqueeze(-2) for table in rope)
        normed = [
            F.rms_norm(x, x.shape[-1:], weight.to(x.dtype), eps) for x, weight in ((query, query_norm), (key, key_norm))
        ]
        query, key = (x * cos + _swapped(x) * sin for x in normed)
        return query, key, value
    return _Heads.apply(qkv_BS3HE, query_norm, key_norm, *rope, eps)


class _Beginnings(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ends: Sequence[int]) -> tuple[Tensor, ...]:
        return tuple(x[:, :end] for end in ends)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        *shorter, longest = grads
        out = longest.clone()
        for grad in shorter:
            out[:, : grad.shape[1]].add_(grad)
        return out, None


def beginnings(x: Tensor, ends: Sequence[int]) -> tuple[Tensor, ...]:
    """x[:, :end] for every end, the last of which is the whole length; gradients are added up in one buffer."""
    return _Beginnings.apply(x, ends)
