"""Pictures that show the same, by the cosine of their embeddings."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.decide.semantic import similar


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 40), since=st.integers(0, 40))
def test_similar_finds_what_comparing_all_finds(seed: int, count: int, since: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, 8))
    vectors = centres[rng.integers(0, 4, count)] + rng.normal(size=(count, 8)) * rng.choice([0, 0.1, 0.5], (count, 1))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    groups = rng.integers(0, 2, count)
    alike = similar(vectors, groups, cosine=0.95, since=since)
    leader = dict(zip(alike.rows.tolist(), alike.representatives.tolist()))
    pairs = {tuple(p) for p in alike.near.tolist()}
    for a in range(count):
        for b in range(max(a + 1, since), count):
            cosine = float(vectors[a] @ vectors[b])
            if abs(cosine - 0.95) < 1e-5:
                continue
            heads = tuple(sorted((leader.get(a, a), leader.get(b, b))))
            known = heads[0] == heads[1] or heads in pairs or heads[1] < since
            assert known or not (cosine >= 0.95 and groups[a] == groups[b])
    for (a, b), cosine in zip(alike.near.tolist(), alike.apart.tolist()):
        assert a < b and b >= since and groups[a] == groups[b] and cosine >= 0.95 - 1e-5
