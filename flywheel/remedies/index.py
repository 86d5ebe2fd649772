"""Vector index over the captions of a snapshot: retrieval, and how dense the pool is around a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import faiss

SAMPLE = 2048  # captions that stand for the pool's own density


@dataclass(frozen=True)
class CaptionIndex:
    """Unit vectors of the pool's captions under inner product (cosine). `ids[i]` is the sample of row i."""

    ids: tuple[str, ...]
    vectors: np.ndarray  # float32 [N, D], unit length
    index: faiss.Index

    @classmethod
    def build(cls, rows: Sequence[tuple[str, str]]) -> CaptionIndex:
        """Index (sample_id, caption) rows; exact search, deterministic."""
        import faiss

        vectors = _embed([caption for _, caption in rows])
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return cls(tuple(i for i, _ in rows), vectors, index)

    def search(self, prompts: Sequence[str], count: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and row numbers [P, count], nearest first."""
        return self.index.search(_embed(prompts), min(count, len(self.ids)))

    def density(self, prompts: Sequence[str], neighbours: int) -> np.ndarray:
        """Percentile [P], 0–100, of each prompt's mean cosine to its nearest captions in the pool's own values."""
        similar, _ = self.search(prompts, neighbours)
        rows = np.random.default_rng(0).permutation(len(self.ids))[:SAMPLE]
        own, _ = self.index.search(self.vectors[rows], min(neighbours + 1, len(self.ids)))
        own_mean = np.sort(own[:, 1:].mean(axis=1))  # a caption's nearest neighbour is itself
        return np.searchsorted(own_mean, similar.mean(axis=1)) / max(1, len(own_mean)) * 100


def _embed(texts: Sequence[str]) -> np.ndarray:
    from training.models.condition import load_condition_encoder

    return np.ascontiguousarray(load_condition_encoder("minilm").embed(list(texts)), dtype=np.float32)
