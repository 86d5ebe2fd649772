"""Pictures of a model that is not here: they open cases, further seeds route them, and what is missing is listed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flywheel.cases.events import load_cases
from flywheel.core.files import write_json
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.suite import load_suite, write_rows
from tests.flywheel.cli.command import flywheel, wrong
from tests.flywheel.signals.test_calibration import trials
from tests.training.snapshots import card_rows, write_snapshot

MADE = {t.prompt.prompt_id: t for t in trials()}
RIGHT, LUCKY, NEVER, LATE = MADE
POOL = "s"


def suite_file(folder: Path) -> Path:
    rows = [
        {"prompt_id": i, "prompt": t.prompt.text, "task": "t2i", "checks": list(t.prompt.checks)}
        for i, t in MADE.items()
    ]
    return write_rows(folder / "suite.jsonl", rows)


def draw(folder: Path, prompt_id: str, *, right: bool) -> None:
    """The right picture of a prompt, or that of another one."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = prompt_id if right else next(i for i in MADE if i != prompt_id)
    (folder / f"{prompt_id}.png").write_bytes(MADE[shown].picture)


def with_pool(workspace: Workspace) -> None:
    manifest = write_snapshot(workspace.path("shards", POOL), [{"rows": card_rows(40)}])
    counts = {"input": 40, "admitted": 40, "dropped": 0, "quarantined": 0}
    where = workspace.relative(manifest)
    write_json(workspace.snapshot(POOL), {"manifest": where, "policy": "demo", "policy_sha256": "0"})
    row = {"snapshot": POOL, "policy": "demo", "manifest": where, **counts}
    Ledger(workspace, "snapshots").append([row], key="snapshot/s")


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Path]:
    preset = tmp_path / "three.toml"
    preset.write_text("[attribution]\nseeds = 3\n[enhancer]\nbackend = 'rules'\n")
    drawn = tmp_path / "drawn"
    for prompt_id in MADE:
        draw(drawn, prompt_id, right=prompt_id == RIGHT)
    return {"suite": suite_file(tmp_path), "preset": preset, "drawn": drawn, "w": tmp_path / "w"}


def evaluate(place: dict[str, Path]) -> dict:
    given = ("--suite", place["suite"], "--system", "theirs", "-w", place["w"], "--preset", place["preset"])
    out = flywheel("evaluate", "pictures", place["drawn"], *given, "--json")
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout) | {"said": out.stderr}


def tracks(place: dict[str, Path]) -> dict[str, str | None]:
    return {c.prompt_id: c.track for c in load_cases(Workspace(place["w"])).values()}


def test_failures_become_cases_and_the_seeds_that_would_route_them_are_listed(place):
    found = evaluate(place)
    assert (found["passed"], found["failed"], found["signals"]) == (1, 3, 4)
    assert tracks(place) == {LUCKY: None, NEVER: None, LATE: None}
    assert "draw seeds 1–3 of 3 prompts" in found["said"] and found["needed"] == 9
    listed = [json.loads(line) for line in Path(found["needed_list"]).read_text().splitlines()]
    assert {(r["prompt_id"], r["seed"]) for r in listed} == {(i, s) for i in (LUCKY, NEVER, LATE) for s in (1, 2, 3)}
    assert listed[0]["path"] == f"1/{listed[0]['prompt_id']}.png" and listed[0]["prompt"]
    again = evaluate(place)
    assert again["signals"] == 0 and again["events"] == {} and again["needed"] == 9


def test_further_seeds_route_each_case_and_are_counted_once(place):
    with_pool(Workspace(place["w"]))
    listed = Path(evaluate(place)["needed_list"]).read_text().splitlines()
    for row in map(json.loads, listed):
        at = place["drawn"] / row["path"]
        if row["prompt_id"] != LATE or row["seed"] < 3:
            draw(at.parent, row["prompt_id"], right=row["prompt_id"] == LUCKY and row["seed"] == 2)
    found = evaluate(place)
    # The pool has no such card, and none of three seeds passes; two seeds of the last one tell too little.
    assert tracks(place) == {LUCKY: "rl", NEVER: "pretraining", LATE: None}
    assert found["needed"] == 1 and "draw seeds 3 of 1 prompt" in found["said"]
    probes = {r["prompt_id"]: (r["seeds"], r["seeds_passed"]) for r in Ledger(Workspace(place["w"]), "probes").rows()}
    assert probes == {LUCKY: (3, 1), NEVER: (3, 0)}
    (place["drawn"] / "3" / f"{LATE}.png").write_bytes(b"no picture")
    assert evaluate(place)["needed"] == 1  # a broken picture is no evidence
    draw(place["drawn"] / "3", LATE, right=False)
    assert evaluate(place)["needed"] == 0 and tracks(place)[LATE] == "pretraining"
    assert len(Ledger(Workspace(place["w"]), "probes").rows()) == 3
    evaluate(place)
    assert len(Ledger(Workspace(place["w"]), "probes").rows()) == 3


def test_without_a_pool_a_case_that_never_passes_waits_for_one(place):
    for seed in (1, 2, 3):
        for prompt_id in (LUCKY, NEVER, LATE):
            draw(place["drawn"] / f"seed-{seed}", prompt_id, right=prompt_id == LUCKY)
    found = evaluate(place)
    assert tracks(place) == {LUCKY: "rl", NEVER: "unsure", LATE: "unsure"}
    assert "2 cases stay unsure" in found["said"] and "flywheel curate" in found["said"]
    with_pool(Workspace(place["w"]))
    evaluate(place)
    assert tracks(place) == {LUCKY: "rl", NEVER: "pretraining", LATE: "pretraining"}
    evidence = [r for r in Ledger(Workspace(place["w"]), "probes").rows() if r["prompt_id"] == NEVER]
    assert [(r["seeds"], r["density"] is None) for r in evidence] == [(3, True), (None, False)]  # counted once


def test_pictures_of_the_enhanced_prompt_send_a_case_to_the_enhancer(place):
    rows = [json.loads(line) for line in place["suite"].read_text().splitlines()]
    for row in rows:
        row["prompt"] = f"please draw {row['prompt']}"
    write_rows(place["suite"], rows)
    listed = [json.loads(line) for line in Path(evaluate(place)["needed_list"]).read_text().splitlines()]
    better = [r for r in listed if r["path"].startswith("enhanced-0/")]
    assert len(better) == 3 and all(not r["prompt"].startswith("please") for r in better)
    for row in listed:
        draw((place["drawn"] / row["path"]).parent, row["prompt_id"], right=row in better)
    evaluate(place)
    assert set(tracks(place).values()) == {"prompt_enhancement"}


def test_a_copy_in_the_workspace_outlives_the_folder(place):
    evaluate(place)
    shutil.rmtree(place["drawn"])
    workspace = Workspace(place["w"])
    signals = Ledger(workspace, "signals").rows()
    assert all(workspace.path(s["image"]).is_file() and s["checkpoint"] == "theirs" for s in signals)


def test_faults_cost_their_own_prompt_and_wrong_folders_are_named(place, tmp_path: Path):
    (place["drawn"] / f"{LATE}.png").write_bytes(b"no picture")
    (place["drawn"] / "stranger.png").write_bytes(MADE[RIGHT].picture)
    (place["drawn"] / "notes").mkdir()
    found = evaluate(place)
    assert (found["passed"], found["failed"], found["not_judged"]) == (1, 2, 1)
    assert "stranger.png" in found["said"] and "notes" in found["said"]
    (place["drawn"] / "0").mkdir()
    suite = ("--suite", place["suite"])
    assert "both hold seed 0" in wrong("evaluate", "pictures", place["drawn"], *suite)
    (tmp_path / "empty").mkdir()
    assert "has no pictures" in wrong("evaluate", "pictures", tmp_path / "empty", *suite)
    assert "--system NAME" in wrong("evaluate", "pictures", place["drawn"], *suite, "-w", place["w"])
    assert load_suite(place["suite"])
