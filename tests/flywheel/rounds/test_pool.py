"""The pool's steps: what a suite from a file brings along is held out of every shard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flywheel.core.progress import Progress
from flywheel.core.workspace import Workspace
from flywheel.demo.photographs import crops
from flywheel.presets import load_preset
from flywheel.rounds import pool
from flywheel.rounds.context import Context
from flywheel.rounds.job import Job
from flywheel.signals import pinned
from flywheel.signals.nulls import encode
from flywheel.signals.suite import write_rows


def suite_file(folder: Path, name: str, reference: bytes) -> Path:
    (folder / "references").mkdir(parents=True, exist_ok=True)
    (folder / "references" / f"{name}.png").write_bytes(reference)
    check = {"verifier": "similarity", "capability": "identity"}
    row = {"prompt_id": name, "prompt": f"edit {name}", "task": "ti2i", "references": [f"references/{name}.png"]}
    return write_rows(folder / f"{name}.jsonl", [row | {"checks": [check]}])


def test_references_of_the_chased_and_of_the_hidden_suite_are_held_out(tmp_path: Path):
    first, second = (encode(crop) for crop, _ in crops(2, seed="pool"))
    chased, unseen = suite_file(tmp_path, "chased", first), suite_file(tmp_path, "unseen", second)
    workspace, preset = Workspace(tmp_path / "w"), load_preset("tiny")
    preset = replace(preset, evaluation=replace(preset.evaluation, suite=str(chased), hidden=str(unseen)))
    job = Job(workspace=str(workspace.root), source=str(tmp_path), preset="tiny")
    context = Context(workspace, job, preset, Progress())
    pool.hold_out(context)
    pool.hold_out(context)  # again, as after a kill
    held = pinned.held_out(workspace)
    alone = Workspace(tmp_path / "alone")
    pinned.write_held_out(alone, references=[first])
    one = pinned.held_out(alone).looks
    assert len(one) == 1 and one < held.looks and len(held.looks) == 2
    assert [p.prompt_id for p in context.suite] == ["chased"] and [p.prompt_id for p in context.hidden] == ["unseen"]
