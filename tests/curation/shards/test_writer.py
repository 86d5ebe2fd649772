"""Training shards: pictures upright, and faults that cost only their row."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFont
from ray import cloudpickle

from curation.run import curate, explain
from curation.shards import rows as shards
from curation.shards import writer
from curation.sources.ingest import ingest
from curation.synthesis.canvas import font_path
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.image import turned
from flywheel.core.schema import CAPTION_KINDS
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck
from tests.curation import crashing
from tests.curation.corpus import encoded, texture, write_folder
from tests.curation.one_stage import policy, scored
from training.data.captions import choices


def test_text_is_upright_in_the_shards(tmp_path: Path, ray_session: None) -> None:
    sheet = Image.new("RGB", (480, 240), (250, 246, 236))
    font = ImageFont.truetype(font_path("matplotlib:mpl-data/fonts/ttf/DejaVuSans.ttf"), 40)
    for n, line in enumerate(("open every morning", "fresh bread")):
        ImageDraw.Draw(sheet).text((30, 40 + 90 * n), line, font=font, fill=(30, 40, 120))
    files = {"lies.png": encoded(turned(sheet, 90)), "stands.png": encoded(texture(1))}
    captions = {"lies.png": 'a sign: "fresh bread"', "stands.png": "no text"}
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, write_folder(tmp_path / "src", files, captions))
    check = '\n[S1.filters.turned]\nscore = "ocr.turn_doubt"\nmax = 0.3\n'
    turns = policy(tmp_path, check + "[scorers.ocr]\nonly_quoted = true\nturns = true\n")
    manifest = Path(curate(scored(workspace, turns), turns).manifest)
    for file in read_json(manifest)["files"]:
        for row in pq.read_table(manifest.parent / file["path"]).to_pylist():
            if row["caption"] != "no text":
                assert file["width"] > file["height"] and (row["source_width"], row["source_height"]) == (480, 240)
                got = np.asarray(Image.open(io.BytesIO(row["image"])), np.int16)
                want = np.asarray(sheet.resize((file["width"], file["height"])), np.int16)
                assert np.abs(got - want).mean() < 8
                break
    assert len(read_json(manifest)["files"]) == 2


def test_a_process_that_dies_of_no_row_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "run_all", lambda _, calls: ((n, {}) for n, _ in enumerate(calls)))
    places: Any = {"shard": pa.array(["a"]), "row": pa.array([0])}
    work: Any = SimpleNamespace(path="f.parquet", rows=places, alone=lambda n: n)
    with pytest.raises(UsageError, match="by none of its rows alone: free memory, then run the same command again"):
        writer._killers(work)


@pytest.fixture
def failing_fit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers see the planted fault too: the module's functions travel to them by value."""
    monkeypatch.setattr(shards, "fit", crashing.fit)
    cloudpickle.register_pickle_by_value(shards)
    yield
    cloudpickle.unregister_pickle_by_value(shards)


def test_a_picture_that_cannot_be_written_costs_its_row(tmp_path: Path, ray_session: None, failing_fit: None) -> None:
    """One crashes the process, one raises, and the duplicate of the latter takes its place."""
    files = {f"{n}.png": encoded(texture(n, 128, 128)) for n in range(5)}
    files |= {"4.png": encoded(texture(4, 130, 130)) + b"raise", "4-again.png": files["4.png"]}
    files["1.png"] += b"crash"
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, write_folder(tmp_path / "src", files, {n: f"a picture of {n}" for n in files}))
    alone = policy(tmp_path, '\n[S1.filters.dedup]\ncheck = "duplicates"\nhamming = 4\ncolour = 16\n')
    result = curate(scored(workspace, alone), alone)  # Ray's processes only write: each crash starts a new one
    assert (result.input, result.admitted, result.dropped, result.quarantined) == (6, 4, 0, 2)
    quarantine = explain(workspace, result.snapshot, "1.png")["quarantine"]
    assert quarantine[0]["reason"] == "crashed the process that resizes and encodes it"
    assert explain(workspace, result.snapshot, "4.png")["quarantine"][0]["reason"] == "OSError: broken data stream"
    files = sorted(Path(result.manifest).parent.rglob("*.parquet"))
    assert files and all(pq.read_metadata(f).num_rows == 4 for f in files)
    assert fsck(workspace).sound


def test_captions_of_one_picture_come_together(tmp_path: Path, ray_session: None) -> None:
    """Whatever the source, and whenever they come; not those that their own filters drop, nor those of other tasks."""
    picture, other = encoded(texture(1)), encoded(texture(2))
    told = [f"coloured patches, told the {n} time" for n in ("first", "second", "third")]
    rows = {"image": [picture] * 3 + [other], "caption": [*told, "another one"]}
    pq.write_table(pa.table(rows), tmp_path / "five.parquet")
    files = {"again.png": picture, "bad.png": picture}
    captions = {"again.png": "told in a folder", "bad.png": "I'm sorry, but I can't assist with that request."}
    stage = (
        '\n[S1.filters.dedup]\ncheck = "duplicates"\nhamming = 4\ncolour = 16\n'
        '\n[S1.filters.invalid_caption]\nscore = "caption.invalid"\nmax = 0\n'
    )
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, tmp_path / "five.parquet")
    ingest(workspace, write_folder(tmp_path / "src", files, captions))
    joining = policy(tmp_path, stage)
    result = curate(scored(workspace, joining), joining)
    assert (result.input, result.admitted, result.dropped) == (6, 2, 4)
    found = [r for f in Path(result.manifest).parent.rglob("*.parquet") for r in pq.read_table(f).to_pylist()]
    (joined,) = [r for r in found if len(r["captions"]) > 1]
    assert joined["caption"] in [*told, "told in a folder"] and joined["captions"][0]["text"] == joined["caption"]
    assert {c["text"] for c in joined["captions"]} == {*told, "told in a folder"}
    assert {c["kind"] for c in joined["captions"]} == {"general"}
    assert [c.text for c in choices(joined["caption"], joined["captions"], CAPTION_KINDS)] == [
        c["text"] for c in joined["captions"]
    ]
