"""A data phase that a command of the user's trains: it gets the mix and the incumbent, and leaves a generator."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flywheel.core import hashes
from flywheel.core.errors import UsageError
from flywheel.core.files import is_whole, rename_folder, write_json
from flywheel.core.mirror import Publisher, fetched, publish
from flywheel.core.records import RoundPlan
from flywheel.core.supervised import last_lines
from flywheel.core.supervised import run as supervise
from flywheel.generators import DESCRIBED, describe
from flywheel.generators.pipeline import PipelineGenerator, is_local
from flywheel.remedies.mix_export import export
from flywheel.rounds.context import Context
from flywheel.rounds.taken_in import require_drawing

_LORA = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")


def train(run: Context, plan: RoundPlan, arm: str, mix: Sequence[Mapping[str, Any]]) -> Path:
    """Train an arm by the plan's command; returns the folder of the generator that it left.

    The command works in `work`, which becomes `final` once it has ended without error and what it left can draw. After
    a kill it is started again with the same folders. Errors: `UsageError` if it fails, or leaves no generator.
    """
    folder = run.workspace.round(plan.round).checkpoint(arm)
    local = fetched(folder)
    if not is_whole(local / "final"):
        work, data = local / "work", local / ".data"
        work.mkdir(parents=True, exist_ok=True)
        values = {
            "data": str(_data(plan, mix, data)),
            "incumbent": _incumbent(run, plan, local / ".incumbent"),
            "output": str(work),
            "steps": str(plan.steps),
            "seed": str(plan.seed + plan.round),
            "arm": arm,
        }
        hashes.note(local / "train.log", hashes.LIVING)
        _call(run, plan.recipe["command"], values, local / "train.log", Publisher([folder]), arm)
        table = _left(run, plan, work, local / "final")
        require_drawing(table, run.preset.evaluation, f"see {local / 'train.log'} for what trainer.command did")
        rename_folder(work, local / "final")
        for leftover in (data, local / ".incumbent"):
            shutil.rmtree(leftover, ignore_errors=True)
    publish(folder)
    return folder / "final"


def _data(plan: RoundPlan, mix: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """What {data} stands for: a list of manifests with shares, or a folder of exported rows."""
    if plan.recipe["data"] == "manifest":
        write_json(folder / "mix.json", list(mix))
        return folder / "mix.json"
    return export(mix, folder, kind=plan.recipe["data"], samples=plan.recipe["samples"], seed=plan.seed + plan.round)


def _incumbent(run: Context, plan: RoundPlan, folder: Path) -> str:
    """What {incumbent} stands for: a checkpoint or a pipeline without LoRA, by folder or hub tag; "" without one.

    A LoRA is merged into a copy, so that a script always starts from a plain pipeline. An endpoint or a generator of
    your own is the folder with its `generator.json`.
    """
    if not plan.incumbent:
        return ""
    table = describe(run.workspace.path(plan.incumbent))
    if table["kind"] == "diffusers":
        if not table.get("lora"):
            return str(fetched(table["model"])) if is_local(table["model"]) else str(table["model"])
        if not (folder / "model_index.json").exists():
            arguments = {k: v for k, v in table.items() if k != "kind"}
            merged = PipelineGenerator(**arguments).pipeline
            merged.unload_lora_weights()
            merged.save_pretrained(folder)
        return str(folder)
    return str(fetched(run.workspace.path(plan.incumbent)))


def _call(run: Context, command: str, values: Mapping[str, str], log: Path, publisher: Publisher, arm: str) -> None:
    def on_line(line: str) -> None:
        run.progress(0, None, f"{arm}: {line[:100]}")
        publisher()

    argv = [part.format(**values) for part in shlex.split(command)]
    try:
        status = supervise(argv, log, on_line=on_line)
    except OSError as error:
        raise UsageError(
            f"trainer.command cannot be started ({error}): give a command on the PATH, or its path"
        ) from error
    if status:
        said = "; ".join(last_lines(log, 2))
        raise UsageError(
            f"trainer.command ended with status {status} ({said}): see {log}, then run this again to resume"
        )


def _left(run: Context, plan: RoundPlan, work: Path, final: Path) -> dict[str, Any]:
    """The table of the generator that the command left; LoRA weights alone go on top of the incumbent.

    final: where `work` will be: paths that are written are relative to it. Errors: `UsageError` without a generator.
    """
    known = [DESCRIBED, "model_index.json", "config.json", "final/config.json"]
    if not any((work / name).is_file() for name in known):
        lora = next((name for name in _LORA if (work / name).is_file()), None)
        start = describe(run.workspace.path(plan.incumbent)) if plan.incumbent else {}
        if lora is None or start.get("kind") != "diffusers" or start.get("lora"):
            raise UsageError(
                f"trainer.command left no generator in {work}: save a diffusers pipeline, LoRA weights for the "
                "incumbent's pipeline, a checkpoint, or generator.json there"
            )
        base = str(start["model"])
        base = os.path.relpath(fetched(base), final) if is_local(base) else base
        write_json(work / DESCRIBED, {"kind": "diffusers", "model": base, "lora": lora})
    return describe(work)
