"""One-sided tests of the mean of paired differences in [-1, 1], valid in small samples.

A sample is one prompt: the mean over its pictures counts once, so pictures of a prompt may depend on each other in any
way. To test "the mean is at least b", one more prompt with the worst difference, +1, is added, and all prompts get
random weights, uniform on the simplex; the p-value is the probability that the weighted mean is at least b (Gaffke
2005; Learned-Miller and Thomas 2019). For one picture per prompt and b = 0 this is McNemar's exact test, and where
nothing got better it is the limit of Clopper and Pearson. A t-test, a bootstrap or flipped signs see no spread where no
prompt of a small suite changed, and take any margin as shown; this test does not. It is proven valid in these special
cases; for others the tests of this module enumerate its size, and `benchmarks/gate.py` simulates it.

Weights uniform on the simplex are exponentials over their sum, so the p-value is P(Σ (dᵢ - b) Eᵢ ≥ 0). It is computed
without random numbers, by inverting the characteristic function (Imhof 1961).
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
NODES = 256  # of the quadrature; the error of a p-value stays below 1e-6
Z_POWER = 0.8416  # of the normal distribution: 80 %


def tally(differences: ArrayLike) -> tuple[Floats, Floats]:
    """(values [V], ascending; counts [..., V]) of differences [..., n]."""
    rounded = np.round(np.asarray(differences, np.float64), 12)
    values, place = np.unique(rounded, return_inverse=True)
    rows = place.reshape(-1, rounded.shape[-1]) + len(values) * np.arange(rounded[..., 0].size)[:, None]
    counts = np.bincount(rows.ravel(), minlength=rounded[..., 0].size * len(values))
    return values.astype(np.float64), counts.reshape(*rounded.shape[:-1], len(values)).astype(np.float64)


def p_at_least(values: Floats, counts: Floats, bound: float) -> Floats:
    """p-values of "the mean difference is at least `bound`": small where it is shown to be below.

    values: [V], in [-1, 1]; counts: [..., V], prompts with each value. Returns [...].
    """
    if counts.ndim == 2:  # simulated samples, many of them equal
        counts, same = np.unique(counts, axis=0, return_inverse=True)
        return _p_at_least(values, counts, bound)[same.reshape(-1)]
    return _p_at_least(values, counts, bound)


def _p_at_least(values: Floats, counts: Floats, bound: float) -> Floats:
    away = np.append(values, 1.0) - bound
    counts = np.concatenate([counts, np.ones((*counts.shape[:-1], 1))], axis=-1)
    x, weights = _nodes()
    u = x / np.sqrt(np.maximum(counts @ away**2, 1e-30))[..., None]
    angle, decay = np.zeros(u.shape), np.zeros(u.shape)
    for v in np.flatnonzero(away):
        count = counts[..., v, None]
        angle += count * np.arctan(away[v] * u)
        decay += count * np.log1p((away[v] * u) ** 2)
    return np.clip(0.5 + (np.sin(angle) * np.exp(-decay / 2)) @ weights / np.pi, 0.0, 1.0)


@functools.cache
def _nodes() -> tuple[Floats, Floats]:
    """Nodes x in (0, ∞) and weights of ∫ f(x) / x dx, by Gauss and Legendre in x / (1 + x)."""
    t, w = np.polynomial.legendre.leggauss(NODES)
    t, w = (t + 1) / 2, w / 2
    return t / (1 - t), w / (t * (1 - t))


def upper(values: Floats, counts: Floats, alpha: float) -> float:
    """The one-sided upper confidence limit of the mean at level 1 - alpha, in [-1, 1]."""
    from scipy.optimize import brentq

    def above(bound: float) -> float:
        return float(p_at_least(values, counts, bound)) - alpha

    return 1.0 if above(1.0) > 0 else float(brentq(above, -1.0, 1.0, xtol=1e-9))


def prompts_needed(values: Floats, counts: Floats, gap: float, alpha: float) -> int | None:
    """Prompts with which the test shows, with a power of 80 %, that a mean lies below a bound that is `gap` above it.

    The differences are taken to spread as these do. None if more than a million prompts are needed.
    """
    share = counts / counts.sum()
    centred = values - share @ values
    spread = float(np.sqrt(share @ centred**2))

    def enough(n: int) -> bool:
        return bool(p_at_least(centred, share * n, gap - Z_POWER * spread / np.sqrt(n)) <= alpha)

    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
        if high > 1_000_000:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
