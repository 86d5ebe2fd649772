"""Vector index of the pool: nearest samples, and the density of the pool around a prompt or a category.

Up to `EXACT` vectors are searched exactly. Larger pools use inverted lists of 8-bit codes (FAISS IVF, SQ8): the number
of lists that a query visits follows from measured recall, and the best candidates are compared at half precision.
Each sample is embedded once: a folder keeps the vectors in immutable files, to which new samples are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flywheel.core.files import digest
from flywheel.core.storage import readable

if TYPE_CHECKING:
    import faiss

SAMPLE = 2048  # vectors sampled to measure the pool's own density
EXACT = 50_000  # vectors: up to here, exact search is as fast
RECALL = 0.98  # of the 100 nearest, measured on vectors of the pool, that the visited lists must contain
_TRAINING = 64  # vectors per list from which the centres are learned
_TUNING = 256  # vectors on which recall is measured
_CHUNK = 65_536  # vectors added at a time
_SEPARATOR = "/"  # between a sample id and the digest of its content, in the files that keep vectors
Embed = Callable[[Sequence[Any]], np.ndarray]


def build(vectors: np.ndarray | Iterable[np.ndarray], *, seed: int = 0) -> faiss.Index:
    """Index of unit vectors, float32 [N, D] or chunks of them, by inner product. Deterministic."""
    import faiss

    chunks = [vectors] if isinstance(vectors, np.ndarray) else list(vectors)
    total, dim = sum(len(c) for c in chunks), chunks[0].shape[1]
    if total <= EXACT:
        flat = faiss.IndexFlatIP(dim)
        for chunk in chunks:
            flat.add(chunk)
        return flat
    lists = 1 << round(np.log2(np.sqrt(total)))
    coarse = faiss.IndexFlatIP(dim)
    base = faiss.IndexIVFScalarQuantizer(coarse, dim, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    base.cp.seed, base.cp.niter, base.cp.spherical = seed, 8, True
    drawn = sample(chunks, min(total, lists * _TRAINING + _TUNING), seed)
    learn, unseen = drawn[_TUNING:], drawn[:_TUNING]  # the centres overfit the vectors from which they were learned
    base.train(learn)
    fine = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    fine.train(learn[:1])
    index = faiss.IndexRefine(base, fine)
    index.k_factor = 2
    index.own_fields = True
    owned: tuple[Any, ...] = (base, fine, coarse)  # the C++ owner deletes them; SWIG's handle `this` is not typed
    for part in owned:
        part.this.disown()
    base.own_fields = True
    for chunk in chunks:
        for start in range(0, len(chunk), _CHUNK):
            index.add(chunk[start : start + _CHUNK])
    tune(index, unseen)
    return index


def tune(index: faiss.IndexRefine, queries: np.ndarray, *, recall: float = RECALL, count: int = 100) -> int:
    """Set how many lists a query visits: the fewest that find `recall` of the `count` nearest; returns the number."""
    import faiss

    lists = cast("faiss.IndexIVF", faiss.downcast_index(index.base_index))
    lists.nprobe = lists.nlist
    _, exact = index.search(queries, count)
    lists.nprobe = 1
    while lists.nprobe < lists.nlist:
        _, nearest = index.search(queries, count)
        hits = sum(len(np.intersect1d(a, b)) for a, b in zip(nearest, exact))
        if hits >= recall * exact.size:
            break
        lists.nprobe = min(lists.nlist, lists.nprobe + 1 + lists.nprobe // 2)
    return lists.nprobe


def sample(chunks: Sequence[np.ndarray], count: int, seed: int) -> np.ndarray:
    """That many rows of the chunks, drawn without replacement, in a random order."""
    total = sum(len(c) for c in chunks)
    rows = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    ends = np.cumsum([len(c) for c in chunks])
    parts = np.split(rows, np.searchsorted(rows, ends[:-1]))
    picked = np.concatenate([c[p - (end - len(c))] for c, p, end in zip(chunks, parts, ends)])
    return np.ascontiguousarray(np.random.default_rng(seed).permutation(picked))


@dataclass(frozen=True)
class VectorIndex:
    """An index with the sample ids of its rows; embed: turns queries into unit vectors, float32 [N, D]."""

    ids: tuple[str, ...]
    index: faiss.Index
    embed: Embed

    @classmethod
    def build(
        cls,
        rows: Sequence[tuple[str, Any]],
        embed: Embed | None = None,
        *,
        name: str = "minilm",
        folder: Path | None = None,
    ) -> VectorIndex:
        """Index rows of (sample_id, content).

        embed: embeds contents; None: MiniLM, for texts. folder: keeps the vectors of the embedder `name`, so that only
        samples that are new, or whose content is, are embedded.
        """
        embed = embed or embed_texts
        if folder is None:
            vectors = embed([content for _, content in rows])
            return cls(tuple(i for i, _ in rows), build(vectors), embed)
        ids, chunks = vectors_of(rows, embed, name=name, folder=folder)
        return cls(ids, build(chunks), embed)

    def search(self, queries: Sequence[Any], count: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and row numbers, each [Q, count], nearest first."""
        return self.index.search(self.embed(queries), min(count, len(self.ids)))

    def density(self, queries: Sequence[Any], neighbours: int) -> np.ndarray:
        """Percentile [Q], 0–100, of each query's mean cosine to its nearest samples among those of the pool itself."""
        similar, _ = self.search(queries, neighbours)
        rows = np.random.default_rng(0).permutation(len(self.ids))[:SAMPLE]
        own_vectors = np.stack([self._vector(int(r)) for r in rows])
        own, _ = self.index.search(own_vectors, min(neighbours + 1, len(self.ids)))
        own_mean = np.sort(own[:, 1:].mean(axis=1))  # a sample's nearest neighbour is itself
        return np.searchsorted(own_mean, similar.mean(axis=1)) / max(1, len(own_mean)) * 100

    def scarcity(
        self, queries: Mapping[str, Sequence[Any]], *, neighbours: int, sparse: float
    ) -> dict[str, dict[str, float]]:
        """{category: {"queries", "median_percentile", "sparse_share"}}: the share of its queries in sparse regions.

        sparse: percentile of `density` below which a region is sparse.
        """
        every = [q for group in queries.values() for q in group]
        percentiles = np.split(
            self.density(every, neighbours), np.cumsum([len(g) for g in queries.values()])[:-1].astype(int)
        )
        return {
            name: {
                "queries": len(values),
                "median_percentile": float(np.median(values)),
                "sparse_share": float((values < sparse).mean()),
            }
            for name, values in zip(queries, percentiles)
            if len(values)
        }

    def _vector(self, row: int) -> np.ndarray:
        stored = getattr(self.index, "refine_index", self.index)
        return np.asarray(stored.reconstruct(row))


CaptionIndex = VectorIndex  # of captions, embedded as texts


def vectors_of(
    rows: Sequence[tuple[str, Any]], embed: Embed, *, name: str, folder: Path
) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """(sample ids, their vectors in chunks) of rows of (sample_id, content); `folder` keeps those of the embedder."""
    known = {f"{i}{_SEPARATOR}{digest(content)[:16]}": content for i, content in rows}
    place = folder / name
    parts = list(_parts(place))
    stored = {i for ids, _ in parts for i in ids}
    new = [(i, c) for i, c in known.items() if i not in stored]
    for start in range(0, len(new), _CHUNK):
        batch = new[start : start + _CHUNK]
        parts.append(([i for i, _ in batch], embed([c for _, c in batch])))
        _keep(place, *parts[-1])
    kept = [(ids, vectors, np.array([i in known for i in ids], dtype=bool)) for ids, vectors in parts]
    ids = tuple(i.split(_SEPARATOR)[0] for names, _, wanted in kept for i, ok in zip(names, wanted) if ok)
    return ids, [vectors[wanted] for _, vectors, wanted in kept]


def embed_texts(texts: Sequence[str]) -> np.ndarray:
    """Unit sentence vectors, float32 [N, 384] (MiniLM)."""
    from training.models.condition import MiniLM
    from training.models.encoders import load_condition_encoder

    encoder = cast(MiniLM, load_condition_encoder("minilm"))
    return np.ascontiguousarray(encoder.embed(list(texts)), dtype=np.float32)


def _parts(place: Path) -> Iterable[tuple[list[str], np.ndarray]]:
    import pyarrow.parquet as pq

    for path in sorted(place.glob("*.parquet")):
        table = pq.read_table(readable(path))
        flat = table["vector"].combine_chunks().flatten().to_numpy()
        yield table["sample_id"].to_pylist(), np.ascontiguousarray(flat.reshape(table.num_rows, -1), dtype=np.float32)


def _keep(place: Path, ids: Sequence[str], vectors: np.ndarray) -> None:
    import pyarrow as pa

    from flywheel.core.files import write_parquet

    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), vectors.shape[1])
    write_parquet(place / f"{digest(list(ids))[:32]}.parquet", pa.table({"sample_id": ids, "vector": column}))
