"""Scoring on a real Ray: only what is missing, every row present, a bad row costs itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.scorers.scoring import _scored, fetch_images, image_places, pending, references_of, score
from curation.sources import pool
from curation.sources.ingest import ingest
from flywheel.core.errors import UsageError
from flywheel.core.scorer import Item
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, textures, tree, write_folder

CRASHING = "tests.curation.crashing:Crashing"


def test_only_what_is_missing_is_computed(tmp_path: Path, ray_session: None) -> None:
    workspace = Workspace(tmp_path / "w")
    source = write_folder(tmp_path / "src", textures(3) | {"cut.jpg": encoded(texture(9), "JPEG")[:2000]})
    ingest(workspace, source)
    calls: list[tuple] = []
    scorers = {"header": {}, "pixels": {}}
    score(workspace, scorers, progress=lambda *call: calls.append(call))
    assert calls == [(1, 1, "shards scored")]
    first = tree(workspace.path("scores"))
    (pixels,) = workspace.path("scores").glob("pixels@*/*.parquet")
    rows = pq.read_table(pixels).to_pylist()
    assert [r["row"] for r in rows] == [0, 1, 2, 3]
    assert rows[0]["error"].startswith("truncated") and rows[0]["phash"] is None  # cut.jpg comes first
    assert all(r["error"] is None and r["phash"] is not None for r in rows[1:])

    write_folder(source, {"more.png": encoded(texture(50))})
    ingest(workspace, source)
    assert [(len(names), shard.rows) for shard, names in pending(workspace, scorers)] == [(2, 1)]
    score(workspace, scorers | {"text": {}})
    assert not pending(workspace, scorers | {"text": {}})
    assert first.items() <= tree(workspace.path("scores")).items()


SCORERS = {"header": {}, CRASHING: {}}
ONE_WORKER = f"""
import sys
from curation.scorers.scoring import score
from flywheel.core.errors import UsageError
from flywheel.core.scorer import Item
from flywheel.core.workspace import Workspace
score(Workspace(sys.argv[1]), {SCORERS}, workers=1)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_row_of_any_shard_costs_itself(tmp_path: Path, workers: int, request: pytest.FixtureRequest) -> None:
    """Two shards: a row that crashes in native code, and ones that raise."""
    workspace = Workspace(tmp_path / "w")
    for batch, texts in enumerate((["fine", "crash", "fine", "raise"], ["fine", "raise", "fine"])):
        files = {f"{batch}-{n}.jpg": encoded(texture(9 * batch + n, 40, 30), "JPEG") for n in range(len(texts))}
        captions = dict(zip(files, texts))
        ingest(workspace, write_folder(tmp_path / f"src-{batch}", files, captions))
    if workers == 1:  # a Ray of its own
        command = [sys.executable, "-c", ONE_WORKER, str(workspace.root)]
        subprocess.run(command, cwd=Path(__file__).parents[3], check=True, capture_output=True, timeout=300)
    else:
        request.getfixturevalue("ray_session")
        score(workspace, SCORERS)
    first, second = (
        pq.read_table(p).to_pylist() for p in sorted(workspace.path("scores").glob("crashing@1+*/*.parquet"))
    )
    assert [r["length"] for r in first] == [4, None, 4, None] and [r["length"] for r in second] == [4, None, 4]
    assert first[1]["error"] == "RuntimeError: crashed the scoring process"
    assert first[3]["error"] == second[1]["error"] == "ValueError: no such luck"
    # The other scorers keep that row: once the one that crashed is repaired, nothing else has to run again.
    headers = [r for p in workspace.path("scores").glob("header@*/*.parquet") for r in pq.read_table(p).to_pylist()]
    assert len(headers) == 7 and all(r["error"] is None and r["format"] == "JPEG" for r in headers)


def test_a_scorer_that_raises_costs_the_rows_it_raises_for() -> None:
    class Raising:
        def score(self, items: list[Item]) -> list[dict]:
            if any(item.caption == "bad" for item in items):
                raise ValueError("no such luck")
            return [{"length": len(item.caption)} for item in items]

    items = [Item(image=b"", caption=text, task="t2i", references=()) for text in ("one", "bad", "three")]
    first, second, third = _scored(Raising(), items)
    assert (first, third) == ({"length": 3}, {"length": 5}) and str(second) == "no such luck"

    class Missing:
        def score(self, items: list[Item]) -> list[dict]:
            raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")

    with pytest.raises(UsageError, match="nowhere"):
        _scored(Missing(), items)


def test_a_scorer_gets_what_it_declares(tmp_path: Path, ray_session: None) -> None:
    """It is a task of its own beside the others; a GPU is not waited for where there is none."""
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, write_folder(tmp_path / "src", textures(12)))
    calls: list[tuple] = []
    scorers = {"header": {}, "text": {}, "tests.curation.needing:Needing": {}}
    score(workspace, scorers, progress=lambda *call: calls.append(call))
    assert [call[:2] for call in calls] == [(1, 2), (2, 2)] and not pending(workspace, scorers)
    (path,) = workspace.path("scores").glob("needing@*/*.parquet")
    rows = pq.read_table(path).to_pylist()
    assert [r["together"] for r in rows] == [5] * 10 + [2] * 2 and {r["cpus"] for r in rows} == {2.0}


def test_references_are_found_where_they_first_came(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    first, second = encoded(texture(1)), encoded(texture(2))
    pair = {"caption": "make it red", "references": ["a.png"]}
    ingest(workspace, write_folder(tmp_path / "one", {"a.png": first}))
    ingest(workspace, write_folder(tmp_path / "two", {"a.png": first, "b.png": second}, {"b.png": pair}))
    one, two = pool.shards(workspace)
    (image_id,) = (r for r in pq.read_table(one.path)["image_id"].to_pylist())
    assert references_of(workspace, [two.path]) == {image_id: (str(one.path), 0)}
    assert references_of(workspace, [one.path]) == image_places(workspace, []) == {}
    assert fetch_images(references_of(workspace, [one.path, two.path])) == {image_id: first}
