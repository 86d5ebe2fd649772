"""A map of the pool and of failing prompts: each caption and prompt a point of the plane, near what says the like.

t-SNE (scikit-learn; van der Maaten & Hinton 2008) lays out up to `LANDMARKS` captions; every other caption, and every
prompt, lies at the mean of its nearest landmarks, weighted by similarity. So a million points cost one search, new ones
change no old one, and the map is laid out anew only once the pool has grown to `GROWTH` times what it was laid out for.
The files lie beside the vectors of the index, and may be deleted at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel.cases.events import Case
from flywheel.core.files import digest, discard, write_parquet
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace
from flywheel.remedies.index import Embed, embed_texts, sample, vectors_of

if TYPE_CHECKING:
    import duckdb

LANDMARKS = 4000  # captions that t-SNE lays out: half a minute on two cores
GROWTH = 4.0
_NEIGHBOURS = 8  # landmarks that place a point
_TEMPERATURE = 0.03  # of the weights, in cosines: a landmark's own caption decides, where there is one
_COMPONENTS = 50  # of the principal components that t-SNE gets
_CHUNK = 65_536  # points placed at a time


@dataclass(frozen=True)
class Built:
    """What building the map did: points on it, of these new ones, cases, and landmarks laid out now (0: none)."""

    samples: int
    new: int
    cases: int
    laid_out: int


def build(
    workspace: Workspace,
    captions: Sequence[tuple[str, str]],
    cases: Sequence[Case],
    *,
    embed: Embed = embed_texts,
    seed: int = 0,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Built:
    """Place every sample, as (id, caption), and the prompt of every case; what is placed already stays where it is."""
    ids, chunks = vectors_of(captions, embed, name="minilm", folder=workspace.vectors)
    folder, fitted = current(workspace), 0
    if folder is None or len(ids) > GROWTH * int(folder.name.split("-")[0]):
        marks = _unique(sample(chunks, min(len(ids), LANDMARKS), seed)) if ids else np.zeros((0, 1), np.float32)
        folder, fitted = _lay_out(workspace, marks, len(ids), seed), len(marks)
    marks, plane = _landmarks(folder)
    there = {i for path in folder.glob("samples-*.parquet") for i in _column(path, "sample_id")}
    done = new = 0
    names = np.array(ids, dtype=object)
    for vectors in chunks:
        for start in range(0, len(vectors), _CHUNK):
            part, own = vectors[start : start + _CHUNK], names[done : done + _CHUNK][: len(vectors) - start]
            fresh = np.array([i not in there for i in own], dtype=bool)
            if fresh.any():
                xy = place(part[fresh], marks, plane)
                named = own[fresh].tolist()
                write_parquet(folder / f"samples-{digest(named)[:16]}.parquet", _points("sample_id", named, xy))
                new += int(fresh.sum())
            done += len(own)
            progress(done, len(ids))
    xy = place(embed([c.prompt for c in cases]), marks, plane) if cases and len(marks) else np.zeros((0, 2), np.float32)
    write_parquet(folder / "cases.parquet", _points("case_id", [c.case_id for c in cases][: len(xy)], xy))
    return Built(len(ids), new, len(xy), fitted)


def current(workspace: Workspace) -> Path | None:
    """Folder of the map, named by the number of samples for which it was laid out; None before the first."""
    known = sorted(p.parent for p in workspace.path("derived", "maps").glob("*/landmarks.parquet"))
    return known[-1] if known else None


def files(workspace: Workspace) -> list[str]:
    """Parquet files of its points: samples, and cases."""
    folder = current(workspace)
    return sorted(str(p) for part in ("samples-*", "cases") for p in folder.glob(f"{part}.parquet")) if folder else []


def placed(workspace: Workspace, snapshot: str) -> Path | None:
    """Where `keep` writes the rows of this snapshot that are on the map now; None before the first map."""
    folder = current(workspace)
    samples = sorted(p.name for p in folder.glob("samples-*.parquet")) if folder else []
    return folder / f"placed-{digest(snapshot, samples)[:16]}.parquet" if folder else None


def keep(workspace: Workspace, con: duckdb.DuckDBPyConnection, snapshot: str) -> None:
    """Write x, y, outcome and stage of the rows of the latest snapshot: the map's page then compares no ids.

    con: a connection with the views map_points and decisions.
    """
    path = placed(workspace, snapshot)
    if path is None or path.exists():
        return
    rows = con.sql(
        "SELECT x::FLOAT AS x, y::FLOAT AS y, outcome, stage_reached FROM map_points JOIN decisions USING (sample_id)"
    )
    write_parquet(path, rows.to_arrow_table())
    for old in path.parent.glob("placed-*.parquet"):
        if old.name != path.name:
            discard(old)


def lay_out(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Places of unit vectors [N, D] in the plane, float32 [N, 2], within [-1, 1]. Deterministic on one machine."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    count = len(vectors)
    if count < 5:  # t-SNE needs more; these lie on a line
        return np.stack([np.linspace(-1, 1, count), np.zeros(count)], axis=1).astype(np.float32)
    small = PCA(min(_COMPONENTS, *vectors.shape), random_state=seed).fit_transform(vectors)
    perplexity = min(30.0, (count - 1) / 3)
    with threadpool_limits(1):  # its threads wait for one another all the time: on a busy machine, for minutes
        plane = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(small)
    plane -= (plane.max(axis=0) + plane.min(axis=0)) / 2
    return (plane / max(np.abs(plane).max(), 1e-9)).astype(np.float32)


def place(vectors: np.ndarray, marks: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Places of unit vectors [N, D] among landmarks [L, D] whose places are known [L, 2]: float32 [N, 2]."""
    import faiss

    index = faiss.IndexFlatIP(marks.shape[1])
    index.add(marks)
    cosines, rows = index.search(np.ascontiguousarray(vectors, np.float32), min(_NEIGHBOURS, len(marks)))
    weights = np.exp((cosines - cosines[:, :1]) / _TEMPERATURE)
    return np.einsum("nk,nkd->nd", weights / weights.sum(axis=1, keepdims=True), plane[rows]).astype(np.float32)


def _lay_out(workspace: Workspace, marks: np.ndarray, rows: int, seed: int) -> Path:
    plane = lay_out(marks, seed)
    folder = workspace.path("derived", "maps", f"{rows:09d}-{digest(marks.tobytes().hex())[:8]}")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(marks.ravel(), pa.float32()), marks.shape[1])
    write_parquet(folder / "landmarks.parquet", pa.table({"vector": vectors, "x": plane[:, 0], "y": plane[:, 1]}))
    return folder


def _points(key: str, names: Sequence[str], xy: np.ndarray) -> pa.Table:
    named = {k: pa.array(names if k == key else [None] * len(names), pa.string()) for k in ("sample_id", "case_id")}
    return pa.table({**named, "x": xy[:, 0], "y": xy[:, 1]})


def _landmarks(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(readable(folder / "landmarks.parquet"))
    flat = table["vector"].combine_chunks().flatten().to_numpy()
    marks = np.ascontiguousarray(flat.reshape(table.num_rows, table.schema.field("vector").type.list_size), np.float32)
    return marks, np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)


def _column(path: Path, name: str) -> list[str]:
    values: list[str] = pq.read_table(readable(path), columns=[name])[name].to_pylist()
    return values


def _unique(vectors: np.ndarray) -> np.ndarray:
    """Each vector once, in the order in which they come: equal captions would push one another apart."""
    _, first = np.unique(np.round(vectors, 4), axis=0, return_index=True)
    return np.ascontiguousarray(vectors[np.sort(first)])
