"""Every input ends where it belongs, with a reason; what is held out, and what resembles it, never trains."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq

from curation.policy.reader import load_policy
from curation.run import curate
from curation.sources.ingest import ingest
from flywheel.core.files import read_json
from flywheel.core.workspace import Workspace
from tests.curation.world import by_file, table


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
