"""One complete run of two rounds, by the command, as a user starts it; then killed three times and finished."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.cases.events import event, load_cases
from flywheel.catalog import database as catalog
from flywheel.catalog.lineage import why
from flywheel.core.errors import UsageError
from flywheel.core.files import file_digest, read_json
from flywheel.core.ledger import Ledger
from flywheel.core.lens import latest_snapshot
from flywheel.core.progress import Progress
from flywheel.core.workspace import Workspace
from flywheel.demo.world import write_world
from flywheel.presets import Review, load_preset
from flywheel.remedies.enhancer_data import load_examples
from flywheel.remedies.review import Queue
from flywheel.rounds import steps
from flywheel.rounds.advice import advise
from flywheel.rounds.lease import last_job
from flywheel.rounds.outlook import compare, next_round, plan_next, status
from flywheel.rounds.pins import code_version
from flywheel.rounds.promotion import decide, incumbent
from flywheel.signals.suite import load_suite

PRESET = Path(__file__).resolve().parents[3] / "benchmarks" / "micro.toml"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "source"
    write_world(folder, seed=0, size="quick")
    return folder


def command(world: Path, workspace: Path) -> list[str]:
    arguments = [
        "run",
        "--source",
        str(world),
        "--workspace",
        str(workspace),
        "--preset",
        str(PRESET),
        "--no-prefect",
        "--json",
    ]
    return [sys.executable, "-m", "flywheel.cli", *arguments]


def run(world: Path, workspace: Path) -> dict:
    out = subprocess.run(command(world, workspace), capture_output=True, text=True, timeout=600)
    assert out.returncode == 0, out.stderr[-4000:]
    return json.loads(out.stdout.splitlines()[-1])


def sql(workspace: Path, statement: str) -> list[dict]:
    line = [sys.executable, "-m", "flywheel.cli", "sql", statement, "--workspace", str(workspace), "--json"]
    return json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    workspace = tmp_path_factory.mktemp("finished") / "w"
    return workspace, run(world, workspace)


def files(workspace: Path, *folders: str) -> dict[str, str]:
    found = [
        p for f in folders for p in sorted((workspace / f).rglob("*")) if p.is_file() and p.name != "metrics.jsonl"
    ]
    return {str(p.relative_to(workspace)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def test_counts_add_up_in_the_summary_and_in_the_tables(finished: tuple[Path, dict], world: Path):
    workspace, summary = finished
    planted = json.loads(world.with_name("source.planted.json").read_text())
    assert summary["input"] == planted["files"] == summary["admitted"] + summary["dropped"] + summary["quarantined"]
    outcomes = {r["outcome"]: r["n"] for r in sql(workspace, "select outcome, count(*) n from decisions group by 1")}
    assert outcomes == {"admitted": summary["admitted"], "dropped": summary["dropped"]}
    assert sql(workspace, "select count(*) n from quarantine") == [{"n": summary["quarantined"]}]
    missing = sql(workspace, "select count(*) n from decisions where outcome = 'dropped' and filter is null")
    assert missing == [{"n": 0}]


def test_two_rounds_with_a_control_and_a_verdict(finished: tuple[Path, dict]):
    workspace, summary = finished
    first, second = summary["rounds"]
    assert first["verdict"] == "PROMOTE" and second["verdict"] in ("PROMOTE", "HOLD", "REJECT")
    assert first["failure_rate"].keys() == second["failure_rate"].keys() == second["control_failure_rate"].keys()
    assert second["targets"] and first["control_failure_rate"] == {}
    assert Path(summary["report"]).stat().st_size > 10_000
    assert all(Path(c, "ema.safetensors").exists() for c in summary["checkpoints"])
    assert summary["peak_rss_bytes"] > 100e6


def test_cases_carry_capability_track_and_evidence(finished: tuple[Path, dict]):
    workspace, _ = finished
    rows = sql(workspace, "select * from cases")
    assert rows and all(r["capability"] and r["track"] for r in rows)
    evidence = sql(workspace, "select evidence from case_events where kind = 'routed'")
    assert all("reason" in json.loads(r["evidence"]) for r in evidence)
    duplicated = sql(workspace, "select event_id from case_events group by 1 having count(*) > 1")
    assert duplicated == []


def test_generated_samples_are_accounted_for_and_never_say_an_evaluation_prompt(finished: tuple[Path, dict]):
    workspace, summary = finished
    made = sql(workspace, "select caption, capability, outcome from generated")
    assert {r["capability"] for r in made if r["outcome"] == "admitted"} <= set(summary["rounds"][1]["targets"])
    prompts = {json.loads(line)["prompt"] for line in (workspace / "suite" / "suite.jsonl").read_text().splitlines()}
    assert made and prompts.isdisjoint(r["caption"] for r in made)


def test_a_finished_run_has_nothing_to_do(finished: tuple[Path, dict], world: Path):
    workspace, summary = finished
    before = files(workspace, "pool", "shards", "checkpoints", "samples", "ledger")
    began = time.monotonic()
    out = subprocess.run(command(world, workspace), capture_output=True, text=True, timeout=60)
    assert time.monotonic() - began < 20
    assert "nothing to do" in out.stderr
    again = json.loads(out.stdout.splitlines()[-1])
    assert {k: again[k] for k in ("input", "admitted", "rounds")} == {
        k: summary[k] for k in ("input", "admitted", "rounds")
    }
    assert files(workspace, "pool", "shards", "checkpoints", "samples", "ledger") == before


def kill_when(world: Path, workspace: Path, reached: Callable[[], bool]) -> None:
    process = subprocess.Popen(
        command(world, workspace), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before the moment to kill it came"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_three_times_it_still_ends_in_the_same_bytes(finished: tuple[Path, dict], world: Path, tmp_path: Path):
    reference, summary = finished
    workspace = tmp_path / "w"
    kill_when(world, workspace, lambda: any(workspace.glob("scores/*/*.parquet")))
    kill_when(world, workspace, lambda: any(workspace.glob("checkpoints/*candidate/step-*")))
    kill_when(world, workspace, lambda: any(workspace.glob("samples/round-0002-candidate/*.png")))
    assert run(world, workspace)["rounds"] == summary["rounds"]
    folders = ("pool", "scores", "shards", "remedies", "checkpoints", "samples")
    assert files(workspace, *folders) == files(reference, *folders)
    events = "select event_id, count(*) n from case_events group by 1 order by 1"
    assert sql(workspace, events) == sql(reference, events)


@pytest.fixture
def copied(finished: tuple[Path, dict], tmp_path: Path) -> Workspace:
    """A copy to decide on: the module's workspace stays as it is."""
    shutil.copytree(finished[0], tmp_path / "copy", ignore=shutil.ignore_patterns(".prefect"))
    return Workspace(tmp_path / "copy")


def test_a_plan_pins_everything_and_its_dry_run_says_what_it_will_cost(copied: Workspace):
    dry = plan_next(copied, pin=False)
    assert not dry["pinned"] and dry["plan"]["round"] == 3
    assert dry["cost"]["cpu_hours"] > 0 and dry["cost"]["unmeasured"] == [] and dry["cost"]["review_minutes"] == 0
    pinned = plan_next(copied, pin=True)
    assert pinned["pinned"] and pinned["plan"] == dry["plan"] == plan_next(copied, pin=False)["plan"]
    plan = pinned["plan"]
    assert plan["code"] == code_version() and plan["incumbent"] == incumbent(copied).checkpoint
    assert plan["checkpoint"] == file_digest(copied.path(plan["incumbent"], "ema.safetensors"))
    assert plan["policy"]["name"] == "demo" and plan["suites"][0]["sha256"] == file_digest(
        copied.path("suite/suite.jsonl")
    )
    assert all(m["reason"] for m in plan["mix"])


def test_without_auto_approval_a_round_waits_for_people_and_trains_on_what_they_accept(copied: Workspace):
    job, number = last_job(copied), next_round(copied)
    preset = replace(load_preset(job.preset), review=Review(auto_approve=False))
    context = steps.Context(copied, job, preset, Progress())
    plan = steps.plan(context, number, latest_snapshot(copied))
    steps.collect(context, plan)
    with pytest.raises(UsageError, match="wait for review until .* UTC: `flywheel review next"):
        steps.review(context, plan)
    queue, decided = Queue(copied), []
    while item := queue.next("ada"):
        decided.append(queue.decide(item.item, "accepted" if len(decided) % 2 else "rejected", "ada"))
    steps.review(context, plan)
    steps.shard(context, plan)
    steps.shard(context, plan)  # again: found, not redone
    rows = catalog.query(copied, f"select * from generated where round = {number}")
    accepted = {x.sample_id for x in decided if x.outcome == "accepted"}
    assert accepted == {r["sample_id"] for r in rows if r["outcome"] == "admitted"}
    assert len(decided) - len(accepted) == sum(r["filter"] == "review" for r in rows)
    manifest = json.loads((copied.root / "remedies" / f"round-{number:04d}" / "manifest.json").read_text())
    assert sum(f["rows"] for f in manifest["files"]) == len(accepted)
    reviewed = catalog.query(copied, f"select evidence from case_events where kind = 'reviewed' and round = {number}")
    assert reviewed and all(json.loads(r["evidence"])["by"] == "ada" for r in reviewed)


def test_the_other_tracks_get_their_next_training_sets(copied: Workspace):
    cases = [c for c in load_cases(copied).values() if c.is_open][:20]
    tracks = ["rl" if n % 2 else "prompt_enhancement" for n in range(len(cases))]
    rows = [event(c, 2, "routed", {"enhanced": None}, track=t) for c, t in zip(cases, tracks)]
    Ledger(copied, "case_events").append([r | {"event_id": f"t{n}"} for n, r in enumerate(rows)], key="test")
    job = last_job(copied)
    context = steps.Context(copied, job, load_preset(job.preset), Progress())
    advise(context, steps.plan(context, next_round(copied), latest_snapshot(copied)))
    folder, asked = copied.path("remedies", "round-0003"), {p.text for p in context.suite}
    rule, prompts = read_json(folder / "rl" / "rewards.json"), load_suite(folder / "rl" / "prompts.jsonl")
    assert sum(rule["weights"].values()) == pytest.approx(1) and rule["incumbent"] == incumbent(copied).checkpoint
    assert prompts and asked.isdisjoint(p.text for p in prompts)
    made = load_examples(folder / "enhancer" / "train.jsonl")
    assert made and asked.isdisjoint(text for e in made for text in (e.short, e.fine))
    tested = (folder / "enhancer" / "regression.jsonl").read_text().splitlines()
    assert len(tested) >= tracks.count("prompt_enhancement")


def test_lineage_of_a_sample_a_case_and_a_checkpoint(finished: tuple[Path, dict]):
    workspace, summary = Workspace(finished[0]), finished[1]
    made = catalog.query(workspace, "select sample_id, capability from generated where outcome = 'admitted'")[0]
    sample = why(workspace, made["sample_id"])
    assert sample["remedies"][0]["review"][0]["reviews"][0]["by"] == "auto-approve"
    assert sample["remedies"][0]["cases"] and "open cases" in sample["remedies"][0]["reason"]
    assert any(s["manifest"].startswith("remedies/") for s in sample["shards"]) and sample["checkpoints"]
    pool = catalog.query(workspace, "select sample_id from decisions where stage_reached = 'S6'")[0]["sample_id"]
    found = why(workspace, pool)
    assert found["curation"]["rows"][0]["scores"] and len(found["checkpoints"]) == 2
    case = why(workspace, sample["remedies"][0]["cases"][0])
    assert case["capability"] == made["capability"] and case["remedies"][0]["round"] == 2
    assert [t["round"] for t in case["tests"]] == [1, 2] and case["remedies"][0]["helped"] is case["tests"][1]["passed"]
    assert [e["kind"] for e in case["events"]][:2] == ["detected", "routed"]
    checkpoint = why(workspace, summary["checkpoints"][1])
    assert checkpoint["plan"]["snapshot"] == summary["snapshot"] and checkpoint["cost"]["cpu_seconds"] > 0
    assert [p["round"] for p in checkpoint["parents"]] == [1] and checkpoint["training"]["step"] == 4
    with pytest.raises(UsageError, match="matches"):
        why(workspace, "nothing-like-it")


def test_rounds_are_compared_and_rolled_back(copied: Workspace):
    found = compare(copied, 1, 2)
    assert {p["what"] for p in found["pins"]} >= {"targets", "incumbent", "steps"}
    assert {r["capability"] for r in found["rates"]} and found["data"]
    seen = status(copied)
    assert seen["running"] is None and seen["next_round"] == 3 and seen["last_step"]["round"] == 0
    before = incumbent(copied).round
    if before == 1:
        decide(copied, "promote", 2, by="ada", why="a test")
    decide(copied, "rollback", 1, by="ada", why="a test")
    assert incumbent(copied).round == 1 and plan_next(copied, pin=False)["plan"]["incumbent"].startswith(
        "checkpoints/round-0001"
    )
    assert status(copied)["rounds"][0]["decisions"][-1]["kind"] == "rollback"


def test_new_pictures_start_the_next_round_from_the_promoted_checkpoint(finished: tuple[Path, dict], world: Path):
    """Last in this file: it adds to the module's world and workspace."""
    workspace, summary = finished
    for i, name in enumerate(sorted(p.name for p in world.glob("card-*.png"))[:3]):
        from PIL import Image, ImageOps

        ImageOps.expand(Image.open(world / name).convert("RGB"), 40 + i, "white").save(world / f"new-{i}.png")
    lines = [json.dumps({"file": f"new-{i}.png", "caption": f"a small shape, number {i}"}) for i in range(3)]
    with open(world / "captions.jsonl", "a") as f:
        f.write("\n".join(lines) + "\n")
    later = run(world, workspace)
    assert later["input"] == summary["input"] + 3
    assert [r["round"] for r in later["rounds"]] == [1, 2, 3] and later["rounds"][:2] == summary["rounds"]
    plan = json.loads((workspace / "rounds" / "round-0003" / "plan.json").read_text())
    promoted = [r["checkpoint"] for r in sql(workspace, "select * from rounds where verdict = 'PROMOTE' and round < 3")]
    assert plan["incumbent"] in promoted and plan["snapshot"] == later["snapshot"] != summary["snapshot"]


def first(workspace: Path, pattern: str) -> Path:
    return sorted(workspace.glob(pattern))[0]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "pool/*/00000.parquet": flip,
    "scores/header@*/*.parquet": flip,
    "snapshots/*/decisions.parquet": flip,
    "shards/*/*/*.parquet": Path.unlink,
    "remedies/*/*/*.parquet": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "checkpoints/*/final/ema.safetensors": flip,
    "ledger/case_events/*.parquet": flip,
    "rounds/round-0001/result.json": Path.unlink,
    "samples/*/*.png": flip,
}


def test_fsck_finds_each_damage_and_nothing_else(finished: tuple[Path, dict], tmp_path: Path):
    from flywheel.operate.fsck import fsck

    assert fsck(Workspace(finished[0])).findings == ()
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    damaged = {str(first(copy, pattern).relative_to(copy)): damage for pattern, damage in DAMAGES.items()}
    for name, damage in damaged.items():
        damage(copy / name)
    report = fsck(Workspace(copy))
    assert {f.path for f in report.findings if f.severity == "error"} == set(damaged)
    assert not report.sound and all(f.advice for f in report.findings)
