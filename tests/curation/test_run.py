"""A pool curated end to end: every input ends where it belongs, and the shards are what the manifest says."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from curation.policy.reader import load_policy
from curation.run import curate, explain, funnel
from curation.shards.layout import layouts
from curation.shards.writer import fit
from curation.sources.ingest import ingest
from flywheel.core.errors import UsageError
from flywheel.core.files import file_digest, read_json
from flywheel.core.schema import SHARD
from flywheel.core.workspace import Workspace
from tests.curation.corpus import bomb, encoded, texture, textures, tree, turned, word, write_folder


def circle(color: tuple[int, int, int]) -> bytes:
    card = Image.new("RGB", (128, 128), (250, 250, 240))
    ImageDraw.Draw(card).ellipse((34, 34, 94, 94), fill=color)
    return encoded(card)


def noise(seed: int, *, gray: bool = False) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (128, 128, 1 if gray else 3), dtype=np.uint8)
    return encoded(Image.fromarray(np.repeat(pixels, 3, axis=2) if gray else pixels))


def world() -> tuple[dict[str, bytes], dict[str, object]]:
    """(files, captions)."""
    large = texture(40, 240, 240)
    files = textures(6) | {
        "large.png": encoded(large),
        "large.twin.png": encoded(large),
        "large-near.jpg": encoded(large.resize((200, 200), Image.Resampling.LANCZOS), "JPEG", quality=60),
        "red.png": circle((214, 40, 40)),
        "blue.png": circle((32, 92, 200)),
        "sun.png": encoded(word("SUN")),
        "cat.png": encoded(word("CAT")),
        "wrong-word.png": encoded(word("MAP")),
        "turned.jpg": turned(texture(41).transpose(Image.Transpose.ROTATE_90), 6),
        "bad-exif.jpg": turned(texture(42), 9),
        "blank.png": encoded(Image.new("RGB", (128, 128), (20, 60, 110))),
        "noise.png": noise(1),
        "noise-gray.png": noise(2, gray=True),
        "tiny.png": encoded(texture(43, 40, 30)),
        "banner.png": encoded(texture(44, 640, 64)),
        "long.png": encoded(texture(45)),
        "silent.png": encoded(texture(46)),
        "cut.jpg": encoded(texture(47), "JPEG", quality=95)[:3000],
        "cut.png": encoded(texture(48))[:-400],
        "empty.jpg": b"",
        "page.jpg": b"<html>404</html>",
        "bomb.png": bomb(),
        "edit.png": encoded(texture(49)),
        "edit-same.png": encoded(texture(0)),
        "edit-of-cut.png": encoded(texture(50)),
        "poster.png": encoded(word("SALE", 160)),
        "poster-wrong.png": encoded(word("MILK", 160)),
    }
    captions: dict[str, object] = {n: f"picture {n}" for n in files if n not in ("silent.png", "empty.jpg")}
    captions |= {
        "sun.png": 'the word "SUN"',
        "cat.png": 'the word "CAT"',
        "wrong-word.png": 'the word "OPEN"',
        "long.png": "word " * 1100,
        "edit.png": {"caption": "make it blue", "references": ["picture-000.jpg", "red.png"]},
        "edit-same.png": {"caption": "change nothing", "references": ["edit-same-source.png"]},
        "edit-of-cut.png": {"caption": "mend it", "references": ["cut.jpg"]},
        "poster.png": {"caption": 'a poster: "SALE"', "stream": "synthetic"},
        "poster-wrong.png": {"caption": 'a poster: "BOOK"', "stream": "synthetic"},
    }
    files["edit-same-source.png"] = files["edit-same.png"]
    return files, captions


def expected_ends() -> dict[str, tuple[str, str | None]]:
    """Outcome of each file, and the filter that drops it."""
    expected: dict[str, tuple[str, str | None]] = dict.fromkeys(textures(6), ("admitted", None))
    expected |= {
        **dict.fromkeys(("large.png", "red.png", "blue.png", "sun.png", "cat.png", "turned.jpg"), ("admitted", None)),
        **dict.fromkeys(("edit.png", "poster.png"), ("admitted", None)),
        "large.twin.png": ("dropped", "deduplication"),
        "large-near.jpg": ("dropped", "deduplication"),
        "edit-same-source.png": ("dropped", "deduplication"),
        "edit-same.png": ("dropped", "changed"),
        "wrong-word.png": ("dropped", "quoted_text"),
        "poster-wrong.png": ("dropped", "rendered_text"),
        "bad-exif.jpg": ("dropped", "rotation"),
        "blank.png": ("dropped", "entropy"),
        "noise.png": ("dropped", "entropy"),
        "noise-gray.png": ("dropped", "spatial_entropy"),
        "tiny.png": ("dropped", "resolution"),
        "banner.png": ("dropped", "aspect_ratio"),
        "long.png": ("dropped", "token_length"),
        "silent.png": ("dropped", "token_length"),
        **dict.fromkeys(("cut.jpg", "cut.png", "empty.jpg", "page.jpg", "bomb.png"), ("quarantined", None)),
        "edit-of-cut.png": ("quarantined", None),
    }
    return expected


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[SimpleNamespace]:
    """A curated workspace, its source and what was expected of it."""
    root = tmp_path_factory.mktemp("curated")
    files, captions = world()
    source = write_folder(root / "src", files, captions)
    workspace = Workspace(root / "w")
    ingest(workspace, source)
    result = curate(workspace, load_policy("demo"))
    yield SimpleNamespace(workspace=workspace, source=source, result=result, files=files, expected=expected_ends())


def table(curated: SimpleNamespace, name: str) -> list[dict]:
    return pq.read_table(curated.workspace.path("snapshots", curated.result.snapshot, f"{name}.parquet")).to_pylist()


def by_file(curated: SimpleNamespace, name: str) -> dict[str, dict]:
    return {Path(r["source_uri"]).name: r for r in table(curated, name)}


def test_every_input_ends_where_it_belongs(curated: SimpleNamespace) -> None:
    decisions, quarantine = by_file(curated, "decisions"), by_file(curated, "quarantine")
    ends = {n: (r["outcome"], r["filter"]) for n, r in decisions.items()}
    ends |= dict.fromkeys(quarantine, ("quarantined", None))
    assert ends == curated.expected
    assert not decisions.keys() & quarantine.keys()


def test_counts_add_up(curated: SimpleNamespace) -> None:
    result = curated.result
    assert result.input == len(curated.files) == result.admitted + result.dropped + result.quarantined
    outcomes = [r["outcome"] for r in table(curated, "decisions")]
    assert (outcomes.count("admitted"), outcomes.count("dropped")) == (result.admitted, result.dropped)
    assert len(table(curated, "quarantine")) == result.quarantined
    assert result.quarantined == sum(r["quarantined"] for r in result.funnel)


def test_reasons_scores_and_thresholds(curated: SimpleNamespace) -> None:
    decisions, quarantine = by_file(curated, "decisions"), by_file(curated, "quarantine")
    assert (decisions["tiny.png"]["score"], decisions["tiny.png"]["threshold"]) == (30, 64)
    assert decisions["noise.png"]["score"] > decisions["noise.png"]["threshold"] == 10.8
    assert decisions["blank.png"]["score"] == 0 < decisions["blank.png"]["threshold"]
    copy, near = decisions["large.twin.png"], decisions["large-near.jpg"]
    assert Path(copy["survivor_uri"]).name == Path(near["survivor_uri"]).name == "large.png"
    assert copy["survivor"] == decisions["large.png"]["sample_id"]
    assert quarantine["cut.jpg"]["reason"].startswith("truncated")
    assert quarantine["edit-of-cut.png"]["reason"].startswith("reference image is unusable: truncated")
    assert quarantine["bomb.png"]["reason"].startswith("too large")


def test_stages_follow_the_resolution(curated: SimpleNamespace) -> None:
    decisions = by_file(curated, "decisions")
    assert decisions["picture-000.jpg"]["stage_reached"] == "S6"  # 120 px: the 96 bucket of S3 … S6
    assert decisions["red.png"]["stage_reached"] == "S5"  # three words: too short a caption for S6
    assert decisions["tiny.png"]["stage_reached"] == "S1"
    path = [(r["stage"], r["bucket"], r["passed"], r["filter"]) for r in table(curated, "stages")
            if r["source_uri"].endswith("picture-000.jpg")]  # fmt: skip
    assert path == [
        ("S1", 64, True, None),
        ("S2", 64, True, None),
        ("S3", 96, True, None),
        ("S4", 96, True, None),
        ("S4", 128, False, "resolution"),
        ("S5", 96, True, None),
        ("S6", 96, True, None),
    ]
    entered = {(r["source_uri"].rsplit("/")[-1], r["stage"]) for r in table(curated, "stages")}
    assert ("edit.png", "S1") not in entered and ("edit.png", "S2") in entered
    assert ("poster.png", "S2") not in entered and ("poster.png", "S3") in entered


def test_the_funnel_shows_what_is_not_configured(curated: SimpleNamespace) -> None:
    lines = {(r["stage"], r["bucket"], r["filter"]): r for r in curated.result.funnel}
    assert lines["S1", 64, "image_text"]["status"] == "not configured"
    assert lines["S1", 64, "image_text"]["dropped"] == 0
    assert "clip" in curated.result.not_configured[0]
    first = lines["S1", 64, "broken_files"]
    assert first["quarantined"] == 5
    assert lines["S1", 64, "resolution"]["entered"] == first["entered"] - 5
    assert lines["S2", 64, "broken_files"]["quarantined"] == 1
    for row in curated.result.funnel:
        assert row["entered"] >= row["dropped"] + row["quarantined"]


def test_shards_are_what_the_manifest_says(curated: SimpleNamespace) -> None:
    manifest = read_json(Path(curated.result.manifest))
    folder = Path(curated.result.manifest).parent
    assert manifest["snapshot"] == curated.result.snapshot and manifest["policy"] == "demo"
    assert {f.name for f in folder.rglob("*.parquet")} == {Path(f["path"]).name for f in manifest["files"]}
    buckets: dict[tuple[str, str], set[str]] = {}
    for file in manifest["files"]:
        path = folder / file["path"]
        assert (file_digest(path), path.stat().st_size) == (file["sha256"], file["bytes"])
        assert (file["width"], file["height"]) in layouts(file["bucket"])
        rows = pq.read_table(path)
        assert rows.schema.equals(SHARD) and rows.num_rows == file["rows"]
        for row in rows.to_pylist():
            pictures = [row["image"], *row["references"]]
            assert len(row["references"]) == file["references"] and row["task"] == file["task"]
            for data in pictures:
                with Image.open(io.BytesIO(data)) as picture:
                    assert picture.size == (file["width"], file["height"]) == (row["width"], row["height"])
            for stage in file["stages"]:
                buckets.setdefault((stage, row["sample_id"]), set()).add(file["bucket"])
    passed = {(r["stage"], r["sample_id"]) for r in table(curated, "stages") if r["passed"]}
    assert buckets.keys() == passed
    pairs = [f for f in manifest["files"] if f["task"] == "ti2i"]
    assert pairs and all(f["references"] == 2 for f in pairs)


def test_turned_pictures_are_upright_in_the_shards(curated: SimpleNamespace) -> None:
    sample = by_file(curated, "decisions")["turned.jpg"]["sample_id"]
    manifest = read_json(Path(curated.result.manifest))
    for file in manifest["files"]:
        rows = pq.read_table(Path(curated.result.manifest).parent / file["path"]).to_pylist()
        for row in (r for r in rows if r["sample_id"] == sample):
            assert file["width"] > file["height"]
            got = np.asarray(Image.open(io.BytesIO(row["image"])), np.int16)
            want = fit(encoded(texture(41)), file["width"], file["height"])
            assert np.abs(got - np.asarray(Image.open(io.BytesIO(want)), np.int16)).mean() < 4


def test_curating_again_does_nothing(curated: SimpleNamespace) -> None:
    before = {p: p.stat().st_mtime_ns for p in curated.workspace.root.rglob("*") if p.is_file()}
    assert curate(curated.workspace, load_policy("demo")) == curated.result
    assert {p: p.stat().st_mtime_ns for p in curated.workspace.root.rglob("*") if p.is_file()} == before


def test_what_if_reads_no_image(curated: SimpleNamespace) -> None:
    policy = load_policy("demo")
    assert funnel(curated.workspace, policy) == list(curated.result.funnel)
    shutil.copytree(curated.workspace.root, curated.workspace.root.parent / "blind")
    blind = Workspace(curated.workspace.root.parent / "blind")
    for shard in blind.path("pool").glob("*/0*.parquet"):  # the same pool, its pictures overwritten
        rows = pq.read_table(shard)
        field, nothing = rows.schema.field("image"), pa.array([b""] * rows.num_rows, pa.large_binary())
        pq.write_table(rows.set_column(rows.schema.get_field_index("image"), field, nothing), shard)
    strict = {(r["stage"], r["filter"]): r for r in funnel(blind, policy.replace("S1.resolution.min", 130))}
    assert strict["S1", "resolution"]["dropped"] > 5


def test_explain(curated: SimpleNamespace) -> None:
    workspace, snapshot = curated.workspace, curated.result.snapshot
    explanation = explain(workspace, snapshot, "noise.png")
    (row,) = explanation["rows"]
    assert (row["filter"], row["stages"][-1]["filter"]) == ("entropy", "entropy")
    assert row["scores"]["pixels.entropy"] == row["score"]
    json.dumps(explanation)
    assert explain(workspace, snapshot, row["sample_id"])["rows"] == explanation["rows"]
    assert explain(workspace, snapshot, row["sample_id"][:10])["rows"] == explanation["rows"]
    assert len(explain(workspace, snapshot, by_file(curated, "decisions")["large.png"]["sample_id"])["rows"]) == 2
    assert explain(workspace, snapshot, "empty.jpg")["quarantine"][0]["reason"] == "zero bytes"
    with pytest.raises(UsageError, match="matches"):
        explain(workspace, snapshot, "nothing-like-it")
    with pytest.raises(UsageError, match="nothing has been curated"):
        explain(workspace, None, "noise.png")


def test_evaluation_never_enters_training(curated: SimpleNamespace) -> None:
    decisions = by_file(curated, "decisions")
    held = decisions["large-near.jpg"]["sample_id"]  # held out although it is the worst of its look-alikes
    result = curate(
        curated.workspace,
        load_policy("demo"),
        held_out=frozenset({held}),
        exclude_prompts=frozenset({"Picture  PICTURE-001.jpg!"}),
    )
    assert result.snapshot != curated.result.snapshot
    again = SimpleNamespace(workspace=curated.workspace, result=result)
    ends = {n: (r["outcome"], r["filter"]) for n, r in by_file(again, "decisions").items()}
    assert ends["large-near.jpg"] == ("dropped", "held_out")
    assert ends["large.png"] == ends["large.twin.png"] == ("dropped", "deduplication")
    assert ends["picture-001.jpg"] == ("dropped", "decontamination")
    assert result.input == result.admitted + result.dropped + result.quarantined
    manifest = read_json(Path(result.manifest))
    folder = Path(result.manifest).parent
    trained = {i for f in manifest["files"] for i in pq.read_table(folder / f["path"])["sample_id"].to_pylist()}
    assert not trained & {held, decisions["large.png"]["sample_id"], decisions["picture-001.jpg"]["sample_id"]}


def test_the_order_of_ingestion_does_not_matter(curated: SimpleNamespace, tmp_path: Path) -> None:
    """The same files in two batches, the later names first: the same decisions, survivors included."""
    workspace, source = Workspace(tmp_path / "w"), curated.source
    aside = tmp_path / "aside"
    aside.mkdir()
    early = [source / n for n in ("large.png", "picture-001.jpg", "red.png", "cut.png")]
    lines = (source / "captions.jsonl").read_text()
    kept = [line for line in lines.splitlines(True) if json.loads(line)["file"] not in {p.name for p in early}]
    try:
        for path in early:
            shutil.move(path, aside / path.name)
        (source / "captions.jsonl").write_text("".join(line for line in kept if '"red.png"' not in line))
        ingest(workspace, source)
    finally:
        for path in early:
            shutil.move(aside / path.name, path)
        (source / "captions.jsonl").write_text(lines)
    ingest(workspace, source)
    result = curate(workspace, load_policy("demo"))
    reordered = SimpleNamespace(workspace=workspace, result=result)

    def ends(of: SimpleNamespace) -> dict[str, tuple]:
        keys = ("outcome", "filter", "score", "stage_reached", "survivor_uri")
        return {r["source_uri"]: tuple(r[k] for k in keys) for r in table(of, "decisions")}

    assert ends(reordered) == ends(curated)


def test_killed_while_scoring_and_while_sharding(tmp_path: Path, ray_session: None) -> None:
    source = write_folder(
        tmp_path / "src",
        {f"picture-{n:03d}.jpg": encoded(texture(n, 100, 100), "JPEG") for n in range(140)},
        {f"picture-{n:03d}.jpg": f"a picture of number {n}" for n in range(140)},
    )
    killed = Workspace(tmp_path / "killed")
    for note in ("shards scored", "shard files written"):
        command = [sys.executable, "-m", "tests.curation.killed", str(killed.root), str(source), "progress", note, "1"]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], check=False, timeout=120)
        assert done.returncode == -signal.SIGKILL
        assert not list(killed.path("snapshots").glob("*.json"))
    finished = {p: p.stat().st_mtime_ns for d in ("scores", "shards") for p in killed.path(d).rglob("[!.]*.parquet")}
    assert any("shards" in p.parts for p in finished)
    result = curate(killed, load_policy("demo"))
    assert {p: p.stat().st_mtime_ns for p in finished} == finished, "finished work was done again"

    undisturbed = Workspace(tmp_path / "whole")
    ingest(undisturbed, source)
    assert curate(undisturbed, load_policy("demo")).snapshot == result.snapshot
    killed.sweep()
    assert tree(killed.root) == tree(undisturbed.root)


def test_nothing_to_curate(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ingest a source first"):
        curate(Workspace(tmp_path / "w"), load_policy("demo"))


def test_only_unusable_inputs(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, write_folder(tmp_path / "src", {"a.jpg": b"", "b.jpg": b"text"}))
    result = curate(workspace, load_policy("demo"))
    assert (result.input, result.admitted, result.dropped, result.quarantined) == (2, 0, 0, 2)
    assert read_json(Path(result.manifest))["files"] == []


def test_real_photographs(tmp_path: Path, photos: Path, ray_session: None) -> None:
    workspace = Workspace(tmp_path / "w")
    assert ingest(workspace, photos).new == 250
    result = curate(workspace, load_policy("qwen-image-2"))
    assert (result.input, result.quarantined) == (250, 0)
    dropped = {r["filter"] for r in table(SimpleNamespace(workspace=workspace, result=result), "decisions")} - {None}
    assert dropped == {"resolution"}  # sound photographs are dropped for nothing but their size
    assert result.admitted > 220
