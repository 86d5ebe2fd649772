"""A whole run of two rounds, by the command: what it leaves, and that a killed one ends in the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageOps

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.flywheel.micro import command, go_on, run, sql


def files(workspace: Path, *folders: str) -> dict[str, str]:
    """{path: SHA-256} of the files in these folders, but for training's log of speeds."""
    paths = [p for f in folders for p in sorted((workspace / f).rglob("*")) if p.is_file()]
    return {
        str(p.relative_to(workspace)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in paths
        if p.name != "metrics.jsonl" and ".hashes" not in p.parts
    }


def test_counts_add_up_in_the_summary_and_in_the_tables(micro_run: tuple[Path, dict], micro_world: Path):
    workspace, summary = micro_run
    planted = json.loads(micro_world.with_name("source.planted.json").read_text())
    assert summary["input"] == planted["files"] == summary["admitted"] + summary["dropped"] + summary["quarantined"]
    outcomes = {r["outcome"]: r["n"] for r in sql(workspace, "select outcome, count(*) n from decisions group by 1")}
    assert outcomes == {"admitted": summary["admitted"], "dropped": summary["dropped"]}
    assert sql(workspace, "select count(*) n from quarantine") == [{"n": summary["quarantined"]}]
    missing = sql(workspace, "select count(*) n from decisions where outcome = 'dropped' and filter is null")
    assert missing == [{"n": 0}]


def test_two_rounds_with_a_control_and_a_verdict(micro_run: tuple[Path, dict]):
    workspace, summary = micro_run
    first, second = summary["rounds"]
    assert first["verdict"] == "PROMOTE" and second["verdict"] in ("PROMOTE", "HOLD", "REJECT")
    assert first["failure_rate"].keys() == second["failure_rate"].keys() == second["control_failure_rate"].keys()
    assert second["targets"] and first["control_failure_rate"] == {}
    assert Path(summary["report"]).stat().st_size > 10_000
    assert all(Path(c, "ema.safetensors").exists() for c in summary["checkpoints"])
    assert summary["peak_rss_bytes"] > 100e6


def test_cases_carry_capability_track_and_evidence(micro_run: tuple[Path, dict]):
    workspace, _ = micro_run
    rows = sql(workspace, "select * from cases")
    assert rows and all(r["capability"] and r["track"] for r in rows)
    evidence = sql(workspace, "select evidence from case_events where kind = 'routed'")
    assert all("reason" in json.loads(r["evidence"]) for r in evidence)
    duplicated = sql(workspace, "select event_id from case_events group by 1 having count(*) > 1")
    assert duplicated == []


def test_generated_samples_are_accounted_for_and_never_say_an_evaluation_prompt(micro_run: tuple[Path, dict]):
    workspace, summary = micro_run
    generated = sql(workspace, "select caption, capability, outcome from generated")
    assert {r["capability"] for r in generated if r["outcome"] == "admitted"} <= set(summary["rounds"][1]["targets"])
    prompts = {json.loads(line)["prompt"] for line in (workspace / "suite" / "suite.jsonl").read_text().splitlines()}
    assert generated and prompts.isdisjoint(r["caption"] for r in generated)


def test_a_finished_run_has_nothing_to_do(micro_run: tuple[Path, dict], micro_world: Path):
    workspace, summary = micro_run
    before = files(workspace, "pool", "shards", "checkpoints", "samples", "ledger")
    began = time.monotonic()
    out = subprocess.run(command(micro_world, workspace), capture_output=True, text=True, timeout=60)
    assert time.monotonic() - began < 20
    assert "nothing to do" in out.stderr
    again = json.loads(out.stdout.splitlines()[-1])
    assert {k: again[k] for k in ("input", "admitted", "rounds")} == {
        k: summary[k] for k in ("input", "admitted", "rounds")
    }
    assert files(workspace, "pool", "shards", "checkpoints", "samples", "ledger") == before


def test_a_finished_run_says_its_own_counts_though_another_policy_was_curated_since(
    micro_run: tuple[Path, dict], micro_world: Path, copied: Workspace
):
    summary = micro_run[1]
    counts = {"snapshot": "another", "input": 7, "admitted": 4, "dropped": 2, "quarantined": 1}
    row = counts | {"policy": "p", "manifest": "shards/another.json"}
    Ledger(copied, "snapshots").append([row], key="snapshot/another")
    again = go_on(micro_world, copied.root)
    assert {k: again[k] for k in counts} == {k: summary[k] for k in counts}
    (marker,) = copied.path("runs").glob("*.json")
    marker.write_text('{"finished": true}')  # of an earlier version
    assert go_on(micro_world, copied.root)["snapshot"] == "another"


def kill_when(micro_world: Path, workspace: Path, reached: Callable[[], bool]) -> None:
    process = subprocess.Popen(
        command(micro_world, workspace), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before the moment to kill it came"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_three_times_it_still_ends_in_the_same_bytes(
    micro_run: tuple[Path, dict], micro_world: Path, tmp_path: Path
):
    reference, summary = micro_run
    workspace = tmp_path / "w"
    kill_when(micro_world, workspace, lambda: any(workspace.glob("scores/*/*.parquet")))
    kill_when(micro_world, workspace, lambda: any(workspace.glob("checkpoints/*candidate/step-*")))
    kill_when(micro_world, workspace, lambda: any(workspace.glob("samples/round-0002-candidate/*.png")))
    assert run(micro_world, workspace)["rounds"] == summary["rounds"]
    folders = ("pool", "scores", "shards", "remedies", "checkpoints", "samples")
    assert files(workspace, *folders) == files(reference, *folders)
    events = "select event_id, count(*) n from case_events group by 1 order by 1"
    assert sql(workspace, events) == sql(reference, events)


def test_new_pictures_start_the_next_round_from_the_promoted_checkpoint(
    micro_run: tuple[Path, dict], micro_world: Path, copied: Workspace
):
    summary, captions = micro_run[1], micro_world / "captions.jsonl"
    content, state = captions.read_bytes(), captions.stat()
    pictures = [micro_world / f"new-{i}.png" for i in range(3)]
    for i, (card, path) in enumerate(zip(sorted(micro_world.glob("card-*.png")), pictures)):
        ImageOps.expand(Image.open(card).convert("RGB"), 40 + i, "white").save(path)
    lines = [json.dumps({"file": p.name, "caption": f"a small shape, number {i}"}) for i, p in enumerate(pictures)]
    try:
        with open(captions, "a") as f:
            f.write("\n".join(lines) + "\n")
        later = go_on(micro_world, copied.root)
    finally:  # the source is the session's
        captions.write_bytes(content)
        os.utime(captions, ns=(state.st_atime_ns, state.st_mtime_ns))
        for path in pictures:
            path.unlink()
    assert later["input"] == summary["input"] + 3
    assert [r["round"] for r in later["rounds"]] == [1, 2, 3] and later["rounds"][:2] == summary["rounds"]
    plan = json.loads((copied.root / "rounds" / "round-0003" / "plan.json").read_text())
    query = "select * from rounds where verdict = 'PROMOTE' and round < 3"
    assert plan["incumbent"] in [r["checkpoint"] for r in sql(copied.root, query)]
    assert plan["snapshot"] == later["snapshot"] != summary["snapshot"]
