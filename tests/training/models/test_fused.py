"""The hand-written gradients against their formulas, in double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.models.fused import Linear, _norm_gradients, beginnings, gated_add, heads, linear, modulated_norm, swiglu

LENGTHS = (2, 3)
DTYPES = (torch.float32, torch.float64)


def draw(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def per_token(factors, batch=2):
    return torch.cat([f.expand(batch, n, -1) for f, n in zip(factors, LENGTHS, strict=True)], dim=1)


def plain_heads(qkv, query_norm, key_norm, cos, sin):
    q, k, v = qkv.unbind(2)
    out = []
    for x, weight in ((q, query_norm), (k, key_norm)):
        x = F.rms_norm(x, x.shape[-1:], weight, 1e-6)
        a, b = x.chunk(2, dim=-1)
        out.append(torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1))
    return *out, v


def doubled(cos, sin):
    return torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)


ANGLES = torch.linspace(0, 3, 5 * 4, dtype=torch.float64).view(5, 4)
COS, SIN = ANGLES.cos(), ANGLES.sin()
CASES = {
    "modulated_norm": (
        lambda x, a, b: modulated_norm(x, (a, b), LENGTHS, 1e-6),
        lambda x, a, b: F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + per_token((a, b))),
        [(2, 5, 8), (1, 1, 8), (2, 1, 8)],  # one factor for all rows, then one for each
    ),
    "gated_add": (
        lambda x, y, a, b: gated_add(x, y, (a, b), LENGTHS),
        lambda x, y, a, b: x + y * per_token((a, b)),
        [(2, 5, 8), (2, 5, 7 + 1), (1, 1, 8), (2, 1, 8)],
    ),
    "swiglu": (swiglu, lambda x: F.silu(x[..., :4]) * x[..., 4:], [(2, 5, 8)]),
    "heads": (
        lambda *x: heads(*x, doubled(COS, SIN), 1e-6),
        lambda *x: plain_heads(*x, COS[:, None], SIN[:, None]),
        [(2, 5, 3, 2, 8), (8,), (8,)],
    ),
    "beginnings": (
        lambda x: beginnings(x, (1, 3, 5)),
        lambda x: (x[:, :1], x[:, :3], x[:, :5]),
        [(2, 5, 8)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_the_formula(name):
    fused, formula, shapes = CASES[name]
    arguments = [draw(*shape) for shape in shapes]
    mine, theirs = (f(*arguments) for f in (fused, formula))
    mine, theirs = ((x,) if isinstance(x, torch.Tensor) else x for x in (mine, theirs))
    pull = [torch.randn(x.shape, generator=torch.Generator().manual_seed(9), dtype=x.dtype) for x in theirs]
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(out, arguments, pull) for out in (mine, theirs)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_half_precision_stays_near():
    x, scale, gate = (draw(*s).detach().float() for s in ((2, 5, 8), (2, 1, 8), (1, 1, 8)))
    half = [t.bfloat16().requires_grad_() for t in (x, scale, gate)]
    out = gated_add(half[0], modulated_norm(half[0], (half[1],), (5,), 1e-6), (half[2],), (5,))
    exact = x + F.layer_norm(x, (8,), eps=1e-6) * (1 + scale) * gate
    assert out.dtype == torch.bfloat16 and (out.float() - exact).abs().max() < 0.1
    out.sum().backward()
    assert all(t.grad.dtype == torch.bfloat16 and t.grad.isfinite().all() for t in half)


@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 8), (2, 1, 8), (2, 2, 3, 8)])
@pytest.mark.parametrize("frozen", ["nothing", "x", "weight"])
def test_the_product_in_float32_equals_the_formula(shape, frozen):
    x, weight, pull = (draw(*s).detach() for s in (shape, (6, 8), (*shape[:-1], 6)))
    mine, theirs = ([t.to(d).requires_grad_(n != frozen) for n, t in (("x", x), ("weight", weight))] for d in DTYPES)
    a, b = linear(*mine), F.linear(*theirs)
    torch.testing.assert_close(a, b.float())
    a.backward(pull.float())
    b.backward(pull)
    for got, wanted in zip(mine, theirs, strict=True):
        assert (got.grad is None) == (wanted.grad is None)
        if got.grad is not None:
            torch.testing.assert_close(got.grad, wanted.grad.float())


def test_a_layer_elsewhere_is_the_plain_one():
    layer = Linear(8, 6)
    assert layer.bias is None and layer(torch.zeros(2, 8)).shape == (2, 6)
    assert layer.to("meta")(torch.zeros(2, 8, device="meta")).device.type == "meta"
    assert Linear(8, 6).bfloat16()(torch.zeros(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    compiled = torch.compile(Linear(8, 6), backend="aot_eager", fullgraph=True)
    compiled(torch.ones(2, 8)).sum().backward()


@pytest.mark.parametrize("rows", [1, 2])
def test_gradients_of_a_norm_elsewhere_are_those_of_the_cpu(rows):
    """What a GPU computes by few large kernels."""
    x, scales, pull = draw(2, 5, 8), [draw(1, 1, 8), draw(rows, 1, 8)], draw(2, 5, 8).detach()
    expected = torch.autograd.grad(modulated_norm(x, scales, LENGTHS, 1e-6), [x, *scales], pull)
    _, mean, rstd = torch.native_layer_norm(x, (8,), None, None, 1e-6)
    dx, _, _, *dscales = _norm_gradients(pull, x.detach(), mean.detach(), rstd.detach(), scales, LENGTHS)
    for mine, theirs in zip((dx, *dscales), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_what_the_compiler_gets_is_the_same_formula(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for name in CASES:
        test_value_and_gradient_equal_the_formula(name)
