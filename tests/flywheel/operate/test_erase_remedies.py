"""Erasing from remedies, ledgers, S3 and finished runs: what no curated pool alone has."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from curation.sources.ingest import ingest
from flywheel.core.files import file_digest, write_bytes, write_parquet
from flywheel.core.ledger import Ledger
from flywheel.core.records import Manifest, ShardFile
from flywheel.core.schema import SHARD
from flywheel.core.workspace import Workspace
from flywheel.operate.erase import erase
from flywheel.operate.fsck import fsck
from flywheel.remedies.candidates import CANDIDATE
from flywheel.remedies.review import item_id
from tests.curation.corpus import encoded, texture, write_folder

WHO = {"by": "ada", "why": "asked"}
PICTURE = texture(0, 200, 150)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def pooled(root: Path | str, source: Path) -> Workspace:
    workspace = Workspace(root)
    files = {"0.png": encoded(PICTURE), "1.png": encoded(texture(1, 200, 150))}
    ingest(workspace, write_folder(source, files, {f: f"caption {f}" for f in files}))
    return workspace


def candidate(identity: str, image: bytes, recipe: str, evidence: dict, references: tuple[bytes, ...] = ()) -> dict:
    row = dict.fromkeys(CANDIDATE.names) | {"sample_id": identity, "task": "ti2i" if references else "t2i"}
    row |= {"caption": f"caption of {identity}", "image": image, "references": list(references), "slice": "count"}
    return row | {"bucket": 64, "recipe": recipe, "priority": 0.5, "evidence": json.dumps(evidence)}


def with_remedies(workspace: Workspace) -> tuple[str, list[dict]]:
    """A round's candidates: retrieved, varied, edited and shown from picture 0; one of another picture."""
    mine = sha(encoded(PICTURE))
    small = PICTURE.resize((64, 48), Image.Resampling.LANCZOS)
    tinted = ImageOps.autocontrast(small)
    rows = [
        candidate(mine, png(small), "retrieved", {"case": "c"}),
        candidate("varied", png(ImageOps.mirror(small)), "augmented", {"of": mine}),
        candidate("edited", png(tinted), "tone", {"cases": 1}, (png(small),)),
        candidate("other", png(texture(9, 64, 48)), "counted", {"cases": 1}),
    ]
    folder = workspace.round(1).remedies
    write_parquet(folder / "candidates.parquet", pa.Table.from_pylist(rows, schema=CANDIDATE))
    shard = folder / "64" / "64x48-t2i0-count.parquet"
    write_parquet(shard, pa.Table.from_pylist([{k: r[k] for k in SHARD.names} for r in rows], schema=SHARD))
    place = {"path": "64/64x48-t2i0-count.parquet", "sha256": file_digest(shard), "bytes": shard.stat().st_size}
    shape = {"bucket": 64, "width": 64, "height": 48, "task": "t2i", "references": 0, "stages": ("S1",)}
    Manifest(snapshot="s", round=1, files=(ShardFile(rows=4, slice="count", **shape, **place),)).write(
        workspace.round(1).remedy_manifest
    )
    return mine, rows


def test_what_remedies_made_of_it_goes_and_the_rest_stays(tmp_path: Path) -> None:
    workspace = pooled(tmp_path / "w", tmp_path / "src")
    mine, rows = with_remedies(workspace)
    events = []
    for row in rows:
        item = item_id(1, "count", row["sample_id"])
        queued = {"event_id": f"{item}-q", "item": item, "round": 1, "capability": "count", "kind": "queued"}
        queued |= {"sample_id": row["sample_id"], "priority": 0.5, "caption": row["caption"]}
        events.append(queued | {"evidence": json.dumps({"reviews": 1})})
        write_bytes(workspace.round(1).remedies / "review" / f"{item}.png", row["image"])
    Ledger(workspace, "reviews").append(events, key="queue")
    (erased,) = erase(workspace, ["0.png"], **WHO)
    assert erased.samples == 3
    manifest = Manifest.read(workspace.round(1).remedy_manifest)
    kept = pq.read_table(manifest.files[0] and workspace.round(1).remedies / manifest.files[0].path)
    assert kept["sample_id"].to_pylist() == ["other"] and manifest.files[0].rows == 1
    assert pq.read_table(workspace.round(1).remedies / "candidates.parquet")["sample_id"].to_pylist() == ["other"]
    pictures = sorted(p.stem for p in (workspace.round(1).remedies / "review").glob("*.png"))
    assert pictures == [item_id(1, "count", "other")]
    captions = {r["sample_id"]: r["caption"] for r in Ledger(workspace, "reviews").rows()}
    assert captions == {mine: "", "varied": "", "edited": "", "other": "caption of other"}
    texts = b"".join(p.read_bytes() for p in workspace.path("ledger", "reviews").glob("*.parquet"))
    assert b"caption of varied" not in texts  # nor in a file that the ledger replaced
    assert fsck(workspace).findings == ()


def test_a_redacted_ledger_keeps_its_events_and_takes_new_ones(tmp_path: Path) -> None:
    ledger = Ledger(Workspace(tmp_path / "w"), "battles")
    for number in range(3):
        ledger.append([{"battle_id": str(number), "prompt": f"secret {number}"}], key=str(number))

    def hide(table: pa.Table) -> pa.Table:
        texts = ["" if t == "secret 1" else t for t in table["prompt"].to_pylist()]
        place = table.schema.get_field_index("prompt")
        return table.set_column(place, table.schema.field("prompt"), pa.array(texts, pa.large_string()))

    assert ledger.redact(hide) == 1 and ledger.redact(hide) == 0
    assert [r["prompt"] for r in ledger.rows()] == ["secret 0", "", "secret 2"]
    assert not ledger.append([{"battle_id": "1"}], key="1") and ledger.append([{"battle_id": "4"}], key="4")
    assert len(list(ledger.path.glob("*.parquet"))) == 4 and len(ledger.rows()) == 4
    assert not [f for f in fsck(Workspace(tmp_path / "w")).findings if f.severity == "error"]


def test_on_s3(s3: str, tmp_path: Path) -> None:
    workspace = pooled(f"{s3}/w", tmp_path / "src")
    with_remedies(workspace)
    (erased,) = erase(workspace, ["0.png"], **WHO)
    assert erased.rows == 1 and erased.samples == 3
    assert fsck(workspace).findings == ()
    assert ingest(workspace, tmp_path / "src").quarantined == 1
    for path in workspace.root.rglob("*"):
        assert not path.is_file() or encoded(PICTURE) not in path.read_bytes()


def test_a_finished_run_lists_the_checkpoints_that_saw_it(copied: Workspace) -> None:
    rounds = Ledger(copied, "rounds").rows()
    manifest = Manifest.read(copied.shard_manifest(rounds[0]["snapshot"]))
    read = next(f for f in manifest.files if "S1" in f.stages and f.task == "t2i")
    path = copied.shard_manifest(rounds[0]["snapshot"]).parent / read.path
    sample = pq.read_table(path, columns=["sample_id"])["sample_id"][0].as_py()
    (erased,) = erase(copied, [sample], force=True, **WHO)
    assert rounds[0]["checkpoint"] in erased.checkpoints
    assert Ledger(copied, "erasures").rows()[0]["checkpoints"] == list(erased.checkpoints)
    assert [f for f in fsck(copied).findings if f.severity == "error"] == []


@pytest.mark.parametrize("name", ["0.png", "1.png"])
def test_each_of_several_erasures_leaves_the_others(tmp_path: Path, name: str) -> None:
    workspace = pooled(tmp_path / "w", tmp_path / "src")
    with_remedies(workspace)
    erase(workspace, [name], **WHO)
    erase(workspace, ["1.png" if name == "0.png" else "0.png"], **WHO)
    assert len(Ledger(workspace, "erasures").rows()) == 2
    assert fsck(workspace).findings == ()
