"""A workspace on S3: the same files, ledgers and views as in a folder, two writers, and a network that fails."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.faulty_s3 import FAULTS, draw, faulty
from curation.policy.reader import load_policy
from curation.run import curate, explain
from curation.sources.ingest import ingest
from flywheel.cases.stored import gather
from flywheel.catalog import database as catalog
from flywheel.core.errors import UsageError
from flywheel.core.files import file_digest, read_json, replacing, write_bytes, write_json, write_parquet
from flywheel.core.ledger import Ledger
from flywheel.core.storage import interrupted, located, readable
from flywheel.core.workspace import Workspace
from flywheel.operate import doctor
from flywheel.operate.fsck import fsck
from flywheel.signals.feedback import import_file
from flywheel.signals.inbox import collect
from flywheel.signals.suite import copy_suite, load_suite, write_rows
from tests.curation.corpus import textures, write_folder
from training.recipe_file import load
from training.rl.recipe import RL_RECIPES


def signals(writer: int, number: int) -> list[dict[str, object]]:
    return [{"case_id": f"{writer}-{number}", "event_id": f"{writer}-{number}", "round": writer, "kind": "seen"}]


def test_files_are_those_of_a_folder(s3: str, tmp_path: Path):
    table = pa.table({"n": [1, 2, 3]})
    for root in (tmp_path / "w", f"{s3}/deep/w"):
        workspace = Workspace(root)
        write_json(workspace.path("a", "b", "m.json"), {"x": 1})
        write_parquet(workspace.path("a", "t.parquet"), table)
        with pytest.raises(ZeroDivisionError), replacing(workspace.path("a", "half.json")) as tmp:
            tmp.write_bytes(b"half")
            raise ZeroDivisionError
        again = Workspace(str(workspace.root), create=False)
        assert read_json(again.path("a", "b", "m.json")) == {"x": 1}
        assert pq.read_table(readable(again.path("a", "t.parquet")), columns=["n"]) == table
        assert file_digest(again.path("a", "t.parquet")) == file_digest(tmp_path / "w" / "a" / "t.parquet")
        names = sorted(str(p.relative_to(again.root)) for p in again.root.rglob("[!.]*.*") if p.is_file())
        assert names == ["a/b/m.json", "a/t.parquet", "workspace.json"]
    assert located(Path(f"{s3}/deep/w")) == workspace.root  # a command line makes it a Path


def test_two_processes_make_a_workspace_at_once(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The other one makes it, and writes to it, between this one's first look at it and its second."""
    for root in (tmp_path / "w", located(f"{s3}/w")):
        real = type(root).exists

        made: list[Path] = []

        def exists(path: Path, root: Path = root, real=real, made: list[Path] = made, **options: bool) -> bool:
            exists = real(path, **options)
            if path.name == "workspace.json" and not exists and not made:
                made.append(path)
                write_json(root / "workspace.json", {"format": 1})
                write_json(root / "pool" / "manifest.json", {})
            return exists

        with monkeypatch.context() as patch:
            patch.setattr(type(root), "exists", exists)
            assert str(Workspace(root).root) == str(root)


def test_an_address_elsewhere_is_no_folder(tmp_path: Path):
    """It would be made, under that name, below the working folder."""
    for address in ("gs://bucket/w", "https://host/w", Path("az://box/w"), Path("s3://"), "s3:bucket/w"):
        with pytest.raises(UsageError, match="neither a path nor s3://"):
            located(address)
    assert located(f"file://{tmp_path}/w") == tmp_path / "w"


def test_what_s3_refuses_is_one_sentence(s3: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match="no workspace at"):
        Workspace(f"{s3}/none", create=False)
    with pytest.raises(UsageError, match="there is no bucket no-such-bucket: create it"):
        Workspace("s3://no-such-bucket/w")
    write_json(located(f"{s3}/used/file.json"), {})
    with pytest.raises(UsageError, match="not empty and not a workspace"):
        Workspace(f"{s3}/used")
    checking = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    urlopen(Request(checking, b"0", {"Content-Type": "text/plain"})).close()  # from now on the server looks at keys
    try:
        with pytest.raises(UsageError, match="refuses access to bucket .*AWS_ACCESS_KEY_ID"):
            Workspace(f"{s3}/w")
    finally:
        urlopen(Request(checking, b"inf", {"Content-Type": "text/plain"})).close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UsageError, match="Could not connect .*check AWS_ENDPOINT_URL"):
        Workspace(f"{s3}/w")


def test_curation_is_that_of_a_folder(s3: str, tmp_path: Path, ray_session: None):
    """Equal snapshots and equal bytes: pool, scores, tables and shards, written and read by Ray workers."""
    pictures = textures(4) | {"broken.png": b"no picture"}
    source = write_folder(tmp_path / "src", pictures, {name: f"picture {name}" for name in textures(4)})
    results = []
    for root in (tmp_path / "w", f"{s3}/w"):
        workspace = Workspace(root)
        ingest(workspace, source)
        curated = curate(workspace, load_policy("demo"))
        assert curate(workspace, load_policy("demo")) == curated
        assert (curated.input, curated.quarantined) == (5, 1)
        shards = [f["sha256"] for f in read_json(located(curated.manifest))["files"]]
        stages = explain(workspace, curated.snapshot, "picture-000.jpg")["rows"][0]
        results.append((curated.snapshot, curated.funnel, shards, stages))
        assert catalog.query(workspace, "select count(*) as n from samples") == [{"n": 4}]
    assert results[0] == results[1] and results[0][2]

    assert fsck(workspace).findings == ()
    shard, score = (sorted(workspace.root.glob(p))[0] for p in ("shards/*/*.parquet", "scores/header@*/*.parquet"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    score.write_bytes(score.read_bytes()[:-50])
    lost = sorted(workspace.root.glob("pool/*/00000.parquet"))[0]
    lost.unlink()
    damaged = {str(p.relative_to(workspace.root)) for p in (shard, score, lost)}
    assert {f.path for f in fsck(workspace).findings if f.severity == "error"} == damaged


def test_the_doctor_looks_at_s3(s3: str, s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch):
    def storage(root: Path) -> dict[str, doctor.Line]:
        return {line.name: line for line in doctor._storage(root)}

    assert {line.status for line in storage(located(s3)).values()} == {doctor.OK}
    assert list(located(s3).iterdir()) == []
    (line,) = storage(located("s3://no-such-bucket/w")).values()
    assert line.status == doctor.FAILURE and "there is no bucket no-such-bucket" in line.found
    with faulty(*s3_server, lambda method, path: "unconditional") as (address, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        line = storage(located(s3))["compare-and-swap"]
    assert line.status == doctor.FAILURE and "If-None-Match is ignored" in line.found and "MinIO" in line.advice


def test_signals_arrive_in_the_inbox(s3: str):
    workspace = Workspace(f"{s3}/w")
    event = {"event_id": "e1", "prompt": "a red cube", "thumbs": "down"}
    write_bytes(workspace.path("inbox", "feedback", "day.jsonl"), (json.dumps(event) + "\n").encode())
    assert [r["signals"] for r in collect(workspace)] == [0, 1]
    assert [(r["signals"], r["duplicates"]) for r in collect(workspace)] == [(0, 0), (0, 1)]
    assert gather(workspace) == {"detected": 1} and gather(workspace) == {}


def test_files_that_a_user_names_may_be_there(s3: str, tmp_path: Path):
    workspace, folder = Workspace(tmp_path / "w"), f"{s3}/given"
    row = {"prompt_id": "a", "prompt": "a cat", "task": "ti2i", "checks": [], "references": ["r.png"]}
    write_rows(located(f"{folder}/suite.jsonl"), [row])
    write_bytes(located(f"{folder}/r.png"), b"picture")
    (prompt,) = load_suite(Path(f"{folder}/suite.jsonl"))
    assert prompt.reference_bytes() == (b"picture",)
    copied = copy_suite(Path(f"{folder}/suite.jsonl"), workspace.path("suite", "suite.jsonl"))
    assert load_suite(copied)[0].reference_bytes() == (b"picture",)
    events = pa.table({"event_id": ["1"], "prompt": ["a cat"], "thumbs": ["down"]})
    write_bytes(located(f"{folder}/f.jsonl"), b'{"event_id": "2", "prompt": "a cat", "thumbs": "down"}\n')
    write_parquet(located(f"{folder}/f.parquet"), events)
    assert [import_file(workspace, Path(f"{folder}/f.{kind}")).imported for kind in ("jsonl", "parquet")] == [1, 1]
    write_bytes(located(f"{folder}/recipe.toml"), b'base = "rl-tiny"\nsteps = 3\n')
    assert load(f"{folder}/recipe.toml", RL_RECIPES).steps == 3
    with pytest.raises(UsageError, match=f"{folder}/none.jsonl is not a file: pass a JSON Lines or Parquet file"):
        import_file(workspace, Path(f"{folder}/none.jsonl"))


def test_a_network_that_fails_loses_nothing(s3: str, s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch):
    """Every tenth request is dropped, refused, answered late, or done and not answered."""
    with faulty(*s3_server, draw(0.1)) as (address, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        workspace = Workspace(f"{s3}/w")
        ledger = Ledger(workspace, "case_events")
        for number in range(2):
            assert ledger.append(signals(1, number), key=f"k{number}")
            write_parquet(workspace.path("pool", f"{number}.parquet"), ledger.table())
        assert [r["event_id"] for r in ledger.rows()] == ["1-0", "1-1"]
        files = workspace.path("pool").glob("*.parquet")
        assert sorted(pq.read_table(readable(f)).num_rows for f in files) == [1, 2]
        assert catalog.query(workspace, "select count(*) as n from case_events") == [{"n": 2}]
        assert sum(faults[f] for f in FAULTS) > 2


def test_an_answer_that_broke_off_is_told_from_other_errors():
    broken = OSError("AWS Error INTERNAL_FAILURE during GetObject operation: Failed to flush response stream (eof: 0)")
    assert interrupted(broken) and not interrupted(OSError("AWS Error ACCESS_DENIED during GetObject operation"))
