"""A mix exported for other trainers: rows in the mix's proportions, readable by the libraries that those use."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.remedies.mix_export import export
from tests.training.snapshots import card_rows, write_snapshot


@pytest.fixture
def mix(tmp_path: Path) -> list[dict]:
    base = write_snapshot(tmp_path / "base", [{"rows": card_rows(30)}, {"rows": card_rows(10, task="ti2i")}])
    remedy = write_snapshot(tmp_path / "remedy", [{"rows": card_rows(8, slice_=["color", "count"], seed=5)}])
    return [
        {"manifest": str(base), "slice": "base", "share": 0.5},
        {"manifest": str(remedy), "slice": "color", "share": 0.5},
    ]


def test_images_come_in_the_proportions_of_the_mix(mix: list[dict], tmp_path: Path):
    folder = export(mix, tmp_path / "out", kind="images", samples=0, seed=1)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert Counter(r["file_name"].split("-")[0] for r in rows) == {"base": 22, "color": 22}  # of 40 + 4 rows
    repeated = Counter(r["file_name"].rsplit("-", 1)[0] for r in rows if r["file_name"].startswith("color"))
    assert len(repeated) == 4 and set(repeated.values()) == {5, 6}
    assert len({r["file_name"] for r in rows}) == 44
    for row in rows:
        assert Image.open(folder / row["file_name"]).size == (64, 64) and row["text"]
        assert (row["task"] == "ti2i") == ("references" in row)
        assert all((folder / name).is_file() for name in row.get("references", ()))
    before = sorted(p.name for p in folder.iterdir())
    assert export(mix, folder, kind="images", samples=0, seed=1) == folder
    assert before == sorted(p.name for p in export(mix, tmp_path / "again", kind="images", samples=0, seed=1).iterdir())


def test_webdataset_reads_the_shards(mix: list[dict], tmp_path: Path):
    webdataset = pytest.importorskip("webdataset")
    folder = export(mix, tmp_path / "out", kind="webdataset", samples=20, seed=1)
    rows = list(webdataset.WebDataset([str(p) for p in sorted(folder.glob("*.tar"))], shardshuffle=False))
    assert len(rows) == 20 and len({r["__key__"] for r in rows}) == 20
    for row in rows:
        about = json.loads(row["json"])
        assert about["text"] == row["txt"].decode() and Image.open(io.BytesIO(row["png"])).size == (64, 64)
        assert (about["task"] == "ti2i") == ("ref0.png" in row)


def test_a_slice_without_rows_is_named(mix: list[dict], tmp_path: Path):
    with pytest.raises(UsageError, match="no rows of hands"):
        export([mix[0], mix[1] | {"slice": "hands"}], tmp_path / "out", kind="images", samples=0, seed=1)
    assert not (tmp_path / "out").exists()
