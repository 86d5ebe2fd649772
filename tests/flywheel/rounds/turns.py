"""A workspace after its first round, small enough to run further rounds in a test's own process."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flywheel.cases.events import event, load_cases
from flywheel.core.files import read_json, write_json
from flywheel.core.ledger import Ledger
from flywheel.core.progress import Progress
from flywheel.core.workspace import Workspace
from flywheel.demo.suite import write_suite
from flywheel.presets import Distil, Enhancer, Preset, Rewards, load_preset
from flywheel.rounds.context import Context
from flywheel.rounds.job import Job
from flywheel.rounds.lease import hold
from flywheel.rounds.routing import record_detected
from flywheel.signals.suite import load_suite, write_rows
from tests.flywheel.cases.test_events import signal
from tests.flywheel.plans import round_plan
from training.checkpoint import Checkpoint

RL = {"base": "rl-tiny", "side": 32, "prompts": 1, "group": 2, "sampling_steps": 3, "window": [0, 1], "lora_rank": 2}
RL |= {"held_out": 1, "checkpoint_every": 1, "inner_steps": 1}
DMD = {"base": "dmd-tiny", "side": 32, "batch": 2, "fake_updates": 1, "sigmas": [1.0, 0.5], "checkpoint_every": 1}
SNAPSHOT = "s"


def preset(**changes: Any) -> Preset:
    """The demo's preset with the smallest RL and distillation."""
    demo = load_preset("demo")
    values = {
        "evaluation": replace(demo.evaluation, side=32, steps=1),
        "attribution": replace(demo.attribution, seeds=1),
        "plan": replace(demo.plan, min_cases=1, samples=4),
        "rewards": Rewards(recipe=RL, updates=2, prompts=8),
        "distil": Distil(recipe=DMD, updates=2, prompts=4),
        "enhancer": Enhancer(),
    }
    return replace(demo, **values | changes)


def first_round(root: Path, snapshot: Path, start: Checkpoint, track: str) -> Workspace:
    """Round 1 promoted `start`, whose three failures are routed to `track`."""
    workspace = Workspace(root)
    shutil.copytree(snapshot.parent, workspace.path("shards", SNAPSHOT))
    record = {"manifest": f"shards/{SNAPSHOT}/manifest.json", "policy": "demo", "policy_sha256": "0"}
    write_json(workspace.snapshot(SNAPSHOT), record)
    counts = {"input": 1, "admitted": 1, "dropped": 0, "quarantined": 0}
    row = {"snapshot": SNAPSHOT, "policy": "demo", "manifest": record["manifest"], **counts}
    Ledger(workspace, "snapshots").append([row], key="snapshot/s")
    write_suite(workspace.suite.parent, size="quick")
    asked = [p for p in load_suite(workspace.suite) if not p.references][:3]
    only = [{"verifier": "object", "capability": "object", **c} for p in asked for c in p.checks[:1]]
    write_rows(
        workspace.suite,
        [{"prompt_id": p.prompt_id, "prompt": p.text, "task": p.task, "checks": [c]} for p, c in zip(asked, only)],
    )
    checkpoint = workspace.round(1).checkpoint("candidate") / "final"
    shutil.copytree(start.path, checkpoint)
    round_plan(1, snapshot=SNAPSHOT).write(workspace.round(1).plan)
    signals = [
        signal(p.prompt_id, c["capability"], False) | {"prompt": p.text, "arm": "candidate"}
        for p, c in zip(asked, only)
    ]
    Ledger(workspace, "signals").append(signals, key="evaluation/round-0001-candidate")
    result = {"failure_rate": {}, "gate": [], "round": 1, "verdict": "PROMOTE", "reason": "", "snapshot": SNAPSHOT}
    result |= {"checkpoint": workspace.relative(checkpoint), "incumbent": None, "targets": [], "prompts": {}}
    result |= {"incumbent_failure_rate": {}, "control_failure_rate": {}, "fixed": [], "broken": []}
    write_json(workspace.round(1).result, result)
    row = {k: result[k] for k in ("round", "verdict", "checkpoint", "snapshot")} | {"result": json.dumps(result)}
    Ledger(workspace, "rounds").append([row], key="round/1")
    record_detected(workspace, 1)
    cases = load_cases(workspace).values()
    routed = [event(c, 1, "routed", {"reason": "a test"}, track=track) for c in cases]
    Ledger(workspace, "case_events").append(routed, key="route/1")
    return workspace


def context(workspace: Workspace, **changes: Any) -> Context:
    """The context of a run on the workspace."""
    job = Job(workspace=str(workspace.root), source=str(workspace.root), preset="demo")
    return Context(workspace, job, preset(**changes), Progress(io.StringIO()))


def remembering(steps: list[str], *, stop_at: str = "") -> Callable[..., Any]:
    """Runs a step and notes its label; raises `KeyboardInterrupt` before the step `stop_at`."""

    def do(label: str, function: Callable[..., Any], *args: Any, round_: int = 0, units: Any = 0) -> Any:
        if stop_at and stop_at in label:
            raise KeyboardInterrupt
        steps.append(label.partition(": ")[2])
        return function(*args)

    return do


def said(run: Context) -> str:
    """Everything that the run has told the user."""
    stream = run.progress.stream
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def remember_job(workspace: Workspace) -> None:
    """Leave the trace of a run, whose settings later commands take up."""
    with hold(workspace, Job(workspace=str(workspace.root), source=str(workspace.root), preset="demo")):
        pass


def planned(workspace: Workspace, number: int) -> dict[str, Any]:
    """A round's pinned plan."""
    return read_json(workspace.round(number).plan)
