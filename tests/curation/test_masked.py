"""Edit pairs from photographs: exact masks, inverse pairs, refusals; and synthetic sources from job to shard."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from curation.policy.reader import load_policy
from curation.run import curate
from curation.sources import pool
from curation.sources.ingest import ingest
from curation.synthesis import source as synthetic
from curation.synthesis.masked import KINDS, masked_edits
from curation.synthesis.photos import RESTORATIONS, STYLES, photo_edits
from curation.synthesis.pictures import in_folder, in_pool, shuffled
from curation.synthesis.regions import blend, subject
from curation.synthesis.sample import Sample, Unsuitable
from curation.synthesis.source import EditSpec, TextSpec, write_source
from curation.verify.checks import passed, verify
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, tree, write_folder


@pytest.fixture(scope="module")
def photographs() -> tuple[bytes, bytes]:
    """A flower, and a Chinese temple."""
    temple, flower = (Image.fromarray(pixels).resize((320, 214)) for pixels in load_sample_images().images)
    return encoded(flower, "JPEG", quality=95), encoded(temple, "JPEG", quality=95)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)), np.int16)


def edits(kind: str, photographs: tuple[bytes, bytes], seed: int = 0) -> list[Sample]:
    flower, temple = photographs
    first, second = (temple, flower) if kind == "object" else (flower, temple)
    return list(masked_edits(kind, first, "a photo of a dahlia", second, "a photo of a dahlia", random.Random(seed)))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_changes_outside_the_mask_and_something_inside(kind: str, photographs: tuple[bytes, bytes]) -> None:
    forward, backward = edits(kind, photographs)
    mask = pixels(forward.mask)
    change = np.abs(pixels(forward.image) - pixels(forward.references[0])).max(axis=2)
    assert set(np.unique(mask)) == {0, 255} and mask.shape == change.shape
    assert change[mask == 0].max(initial=0) == 0
    assert change[mask > 0].mean() > 5
    assert (backward.image, backward.references) == (forward.references[0], (forward.image,))
    assert backward.mask == forward.mask and backward.caption != forward.caption
    assert edits(kind, photographs) == [forward, backward] != edits(kind, photographs, seed=1)


def test_what_is_said_names_the_subject(photographs: tuple[bytes, bytes]) -> None:
    assert edits("recolour", photographs)[0].caption.startswith("make the dahlia ")
    assert edits("object", photographs)[1].caption.startswith("remove the dahlia on the ")
    flower, temple = photographs
    unknown = masked_edits("recolour", flower, "Dahlia, f/2.8", temple, "", random.Random(0))
    assert next(unknown).caption.startswith("make the subject ")


def test_an_edited_text_is_read_back(photographs: tuple[bytes, bytes]) -> None:
    pairs = [sample for seed in range(2) for sample in edits("text", photographs, seed)]
    asked = [s for s in pairs if s.checks]
    assert len(asked) >= 2
    assert all(passed(o) for o in verify([s.item for s in asked], [s.checks for s in asked]))
    wrong = [{**asked[0].checks[0], "text": "something else"}]
    assert not passed(verify([asked[0].item], [wrong])[0])


def test_pictures_without_a_subject_are_unsuitable(photographs: tuple[bytes, bytes]) -> None:
    for picture in (Image.new("RGB", (200, 160), (90, 120, 60)), texture(2, 200, 160)):
        with pytest.raises(Unsuitable, match="subject"):
            subject(picture)
    same = Image.new("RGB", (64, 64), (120, 120, 120))
    with pytest.raises(Unsuitable, match="changes nothing"):
        blend(same, same, np.ones((64, 64), bool))


def test_restorations_and_styles_keep_what_is_shown(photographs: tuple[bytes, bytes]) -> None:
    samples = list(photo_edits(photographs[0], seed="0", operations=(*RESTORATIONS, *STYLES), min_identity=0.5))
    assert len(samples) == 2 * len(RESTORATIONS + STYLES)
    assert all(passed(o) for o in verify([s.item for s in samples], [s.checks for s in samples]))
    assert samples == list(photo_edits(photographs[0], seed="0", operations=(*RESTORATIONS, *STYLES), min_identity=0.5))


# Sources -------------------------------------------------------------------------------------------------------------
SPEC = TextSpec("comic", ("latin",), 0, 384, 100)


def test_a_source_is_the_same_however_it_came_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_PART", 2)
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    made = write_source(whole, SPEC, 3)
    assert made.samples == 3 and len(list(whole.glob("*.png"))) == 3
    write_source(grown, SPEC, 1)
    (grown / ".parts" / "000000.json").unlink()  # as if killed before the part was finished
    write_source(grown, SPEC, 3)
    assert tree(grown) == tree(whole)
    rows = [json.loads(line) for line in (whole / "captions.jsonl").read_text().splitlines()]
    assert all(r["stream"] == "synthetic" and r["captions"][0]["kind"] == "text" for r in rows)
    workspace = Workspace(tmp_path / "w")
    assert ingest(workspace, whole).new == 3
    (shard,) = pool.shards(workspace)
    assert set(pq.read_table(shard.path)["stream"].to_pylist()) == {"synthetic"}


def test_a_source_refuses_what_it_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "full", {"a.png": b""})
    with pytest.raises(UsageError, match="is not empty"):
        write_source(tmp_path / "full", SPEC, 1)
    monkeypatch.setattr(synthetic, "_PART", 1)
    write_source(tmp_path / "one", SPEC, 1)
    with pytest.raises(UsageError, match="other settings"):
        write_source(tmp_path / "one", TextSpec("comic", ("latin",), 1, 384, 100), 1)
    with pytest.raises(UsageError, match="need photographs"):
        write_source(tmp_path / "two", TextSpec("scene", ("latin",), 1, 384, 100), 1)
    monkeypatch.setattr(synthetic, "_PATIENCE", 3)
    flat = write_folder(tmp_path / "flat", {f"{n}.png": encoded(Image.new("RGB", (64, 64))) for n in range(2)})
    with pytest.raises(UsageError, match="4 of 4 candidates are refused, mostly: no subject"):
        write_source(tmp_path / "three", EditSpec(("recolour",), 0), 1, pictures=in_folder(flat))


def test_edit_pairs_and_their_masks_reach_the_shards(
    tmp_path: Path, photographs: tuple[bytes, bytes], ray_session: None
) -> None:
    flower, temple = photographs
    photos = write_folder(
        tmp_path / "photos",
        {"flower.jpg": flower, "temple.jpg": temple},
        {"flower.jpg": "a photo of a dahlia", "temple.jpg": "a photo of a temple by a lake"},
    )
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, photos)
    pictures = shuffled(in_pool(workspace, None), "0")
    assert [p.read() for p in sorted(pictures, key=lambda p: p.row)] == [flower, temple]
    made = write_source(tmp_path / "edits", EditSpec(("recolour", "tone"), 0), 4, pictures=pictures)
    assert made.samples == 4
    found = ingest(workspace, tmp_path / "edits")
    rows = [json.loads(line) for line in (tmp_path / "edits" / "captions.jsonl").read_text().splitlines()]
    masks = {r["mask"] for r in rows if "mask" in r}
    assert masks and found.quarantined == 0 and found.found == len({r["file"] for r in rows}) == 4
    result = curate(workspace, load_policy("demo"))
    shown = []
    for file in read_json(Path(result.manifest))["files"]:
        shown += pq.read_table(Path(result.manifest).parent / file["path"]).to_pylist()
    pairs = [r for r in shown if r["task"] == "ti2i" and r["mask"]]
    assert pairs
    for row in pairs:
        mask = pixels(row["mask"])
        change = np.abs(pixels(row["image"]) - pixels(row["references"][0])).max(axis=2)
        assert mask.shape == change.shape and change[mask == 0].max(initial=0) == 0
