"""The vector index: exact while small, measured recall when large, embedded once, scarce where the pool is thin."""

from pathlib import Path

import numpy as np
import pytest

from flywheel.remedies import index as module
from flywheel.remedies.index import VectorIndex, build
from flywheel.remedies.retrieval import captions


def unit(rng: np.random.Generator, count: int, dim: int = 32) -> np.ndarray:
    """Unit vectors around 40 centres."""
    centres = np.random.default_rng(1).standard_normal((40, dim))
    values = centres[rng.integers(40, size=count)] + 0.6 * rng.standard_normal((count, dim))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_a_large_index_finds_what_exact_search_finds(monkeypatch: pytest.MonkeyPatch):
    vectors, queries = unit(np.random.default_rng(0), 6000), unit(np.random.default_rng(2), 50)
    _, exact = build(vectors).search(queries, 100)
    monkeypatch.setattr(module, "EXACT", 1000)
    large = build([vectors[:2500], vectors[2500:]])
    import faiss

    lists = faiss.downcast_index(large.base_index)
    assert 1 < lists.nprobe < lists.nlist  # not simply everything
    _, nearest = large.search(queries, 100)
    assert np.mean([len(np.intersect1d(a, b)) for a, b in zip(nearest, exact)]) >= 95
    cosines, rows = large.search(vectors[:5], 1)
    assert rows[:, 0].tolist() == [0, 1, 2, 3, 4] and cosines[:, 0] == pytest.approx(1, abs=2e-3)


def test_only_new_samples_are_embedded_and_removed_ones_are_not_found(tmp_path: Path):
    asked: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return np.stack([unit(np.random.default_rng(int(t)), 1)[0] for t in texts]).reshape(len(texts), 32)

    def index(*names: int) -> VectorIndex:
        return VectorIndex.build([(f"s{n}", str(n)) for n in names], embed, folder=tmp_path, name="e")

    index(1, 2, 3)
    grown = index(1, 2, 3, 4)
    assert asked == ["1", "2", "3", "4"]
    _, rows = grown.search(["4"], 1)
    assert grown.ids[rows[0, 0]] == "s4"
    asked.clear()
    shrunk = index(2, 4)
    assert asked == []
    VectorIndex.build([("s2", "7"), ("s4", "4")], embed, folder=tmp_path, name="e")
    assert asked == ["7"]  # another caption of a known sample
    assert sorted(shrunk.ids) == ["s2", "s4"]
    assert shrunk.ids[shrunk.search(["2"], 1)[1][0, 0]] == "s2"


@pytest.mark.parametrize("exact", [50_000, 500])
def test_scarcity_tells_thin_categories_from_dense_ones(monkeypatch: pytest.MonkeyPatch, exact: int):
    monkeypatch.setattr(module, "EXACT", exact)
    rng = np.random.default_rng(0)
    vectors = unit(rng, 2000)
    known = {"dense": unit(rng, 20), "thin": -unit(rng, 20)}
    index = VectorIndex(tuple(map(str, range(2000))), build(vectors), lambda queries: np.stack(queries))
    scarcity = index.scarcity({k: list(v) for k, v in known.items()}, neighbours=8, sparse=25)
    assert scarcity["thin"]["sparse_share"] == 1 and scarcity["dense"]["sparse_share"] < 0.6
    assert scarcity["dense"]["median_percentile"] > 25 > scarcity["thin"]["median_percentile"]


def test_a_removed_category_is_scarce_and_a_common_one_is_not(base: Path):
    rows = [r for r in captions(base) if '"' not in r[1]]
    index = VectorIndex.build(rows)
    words = [f'the word "{w}" in red letters' for w in ("MILK", "TAXI", "SALE")]
    shapes = [c for _, c in rows[:3]]
    scarcity = index.scarcity({"typography": words, "object": shapes}, neighbours=8, sparse=25)
    assert scarcity["typography"]["sparse_share"] == 1 and scarcity["object"]["sparse_share"] < 0.5
