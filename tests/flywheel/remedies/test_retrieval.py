"""Pool samples near the cases, and the rows and pictures of samples."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from flywheel.cases.events import Case
from flywheel.core.files import write_parquet
from flywheel.core.records import Manifest, ShardFile
from flywheel.core.schema import SHARD
from flywheel.remedies.index import VectorIndex
from flywheel.remedies.retrieval import captions, nearest, pictures, rows_of
from tests.flywheel.remedies.cards import SUITE, picture


def case(name: str, prompt: str) -> Case:
    return Case(name, 1, "color", "pretraining", name, prompt, "routed")


def by_words(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors whose cosine is the share of words in common; quoted words count most."""
    vectors = np.zeros((len(texts), 256), np.float32)
    for vector, text in zip(vectors, texts):
        for word in text.lower().split():
            vector[zlib.crc32(word.encode()) % 256] += 4 if '"' in word else 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def index(base: Path) -> VectorIndex:
    return VectorIndex.build(captions(base), by_words)


def test_captions_are_listed_once_by_id(base: Path) -> None:
    rows = captions(base)
    assert len(rows) == 51 and rows == sorted(rows) and all(text for _, text in rows)


def test_hits_are_near_best_first_and_each_sample_goes_to_its_nearest_case(base: Path, index: VectorIndex) -> None:
    known = dict(captions(base))
    word, shape = next(c for c in known.values() if '"' in c), SUITE[0].text
    hits = nearest(index, [case("shape", shape), case("word", word)], 0.6)
    assert hits and all(h.similarity >= 0.6 for h in hits)
    assert [h.similarity for h in hits] == sorted((h.similarity for h in hits), reverse=True)
    assert len({h.sample_id for h in hits}) == len(hits) and {h.case_id for h in hits} == {"shape", "word"}
    assert known[hits[0].sample_id] == word and hits[0].case_id == "word"
    assert {h.case_id for h in hits if '"' in known[h.sample_id]} == {"word"}


def test_nothing_is_near_nothing(index: VectorIndex) -> None:
    assert nearest(index, [], 0.5) == []
    assert nearest(index, [case("far", "quarterly figures of a bank in a table")], 0.95) == []


def test_rows_are_those_of_the_bucket(base: Path) -> None:
    wanted = [f"{n:064x}" for n in (3, 50)]
    rows = rows_of(base, wanted, 64)
    assert rows.keys() == set(wanted) and rows[wanted[0]]["image"] == picture(3)
    assert rows_of(base, wanted, 128) == rows_of(base, [], 64) == {}


def test_edits_start_from_the_picture_before_and_wanted_ones_come_first(tmp_path: Path) -> None:
    empty = {"caption": "", "slice": "base", "width": 64, "height": 64}
    rows = [
        {"sample_id": "plain", "task": "t2i", "image": picture(1), "references": []},
        {"sample_id": "edit", "task": "ti2i", "image": picture(2), "references": [picture(3)]},
        {"sample_id": "torn", "task": "ti2i", "image": picture(4), "references": []},
    ]
    layout = {"bucket": 64, "width": 64, "height": 64, "sha256": "", "bytes": 0, "stages": ("S1",)}
    files = []
    for task, part in (("t2i", rows[:1]), ("ti2i", rows[1:])):
        write_parquet(tmp_path / f"{task}.parquet", pa.Table.from_pylist([r | empty for r in part], schema=SHARD))
        files.append(ShardFile(path=f"{task}.parquet", task=task, references=0, rows=len(part), **layout))
    Manifest(snapshot="s", files=tuple(files)).write(tmp_path / "manifest.json")
    shown = list(pictures(tmp_path / "manifest.json", 64, ["plain"]))
    assert shown == [("plain", picture(1)), ("edit", picture(3))]
    assert Image.open(io.BytesIO(shown[0][1])).size == (64, 64)
    assert [i for i, _ in pictures(tmp_path / "manifest.json", 64, ["edit"])] == ["edit", "plain"]
