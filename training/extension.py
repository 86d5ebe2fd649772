"""A run that goes on from another one on purpose: longer, or at another learning rate; its checkpoints record it.

Weights, moving average and optimiser are those that the other run left, and steps count on. The steps that are added
belong to the stage that the run had reached, and to those after it. The other run's folder stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.mirror import fetched
from training import checkpoint as checkpoints
from training.checkpoint import Checkpoint
from training.curriculum import Curriculum, schedule
from training.data.plan import MixSource
from training.lora import DEFAULTS
from training.recipes import Recipe, from_dict

PACE = ("warmup", "final_learning_rate", "stages")  # what may differ; of stages, only their rates and steps


@dataclass(frozen=True)
class Extension:
    """`checkpoint`: what the run goes on from. changed: {setting: [before, now]}."""

    checkpoint: Checkpoint
    changed: Mapping[str, Any]

    @property
    def origin(self) -> tuple[str, str]:
        """What identifies the run that this one goes on from."""
        return self.checkpoint.config["run"], self.checkpoint.fingerprint

    @property
    def lineage(self) -> list[dict[str, Any]]:
        """Every run that this one goes on from, the first one first."""
        before = self.checkpoint
        last = {"run": before.config["run"], "fingerprint": before.fingerprint, "step": before.step}
        return [*before.config.get("lineage", []), {**last, "changed": dict(self.changed)}]

    def curriculum(self, recipe: Recipe, mix: Sequence[MixSource], steps: int) -> Curriculum:
        """The turns from the stage that was reached to step number `steps`. Errors: as `schedule`."""
        config = self.checkpoint.config
        name, start = config["stage"], config.get("stage_start")
        if start is None:  # a checkpoint from before it was recorded
            start = schedule(from_dict(config["recipe"]), mix, config["steps"]).at(config["step"]).start
        names = [stage.name for stage in recipe.stages]
        whole = schedule(recipe.change(stages=names[names.index(name) :]), mix, steps - start)
        return replace(whole, turns=tuple(replace(turn, start=turn.start + start) for turn in whole.turns))


def extension(folder: Path, recipe: Recipe, *, steps: int, seed: int, parent: Checkpoint | None) -> Extension:
    """The extension of the run in `folder`, or of one of its checkpoints, to `steps` steps.

    Errors: `UsageError` if it has none, has as many steps already, or differs in more than its pace.
    """
    checkpoint = last_of(folder)
    config, changed = checkpoint.config, dict[str, Any]()
    if "stage" not in config or config.keys() & {"rl", "dmd"}:  # which keep what their start's configuration says
        raise UsageError(f"{checkpoint.path} is not of a training run on shards: only these are extended")
    _require_more(checkpoint, steps)
    before, now = from_dict(config["recipe"]).method(), recipe.method()
    what = f"the run in {folder}"
    if other := [k for k in now if k not in (*PACE, "name") and before.get(k) != now[k]]:
        raise UsageError(f"{what} has another {other[0]}: only steps, rates and warm-up can change; start a new run")
    data = [[(s["name"], s["t2i_share"]) for s in values["stages"]] for values in (before, now)]
    if data[0] != data[1]:
        raise UsageError(f"{what} has other stages: only their steps and learning rates can change")
    if config["seed"] != seed:
        raise UsageError(f"{what} has seed {config['seed']}: give the same --seed")
    if config["init"] != (parent and parent.fingerprint) and recipe.lora_rank:
        raise UsageError(f"{what} adapts another checkpoint: give the same --init")
    if config["steps"] != steps:
        changed["steps"] = [config["steps"], steps]
    for name in ("warmup", "final_learning_rate"):
        if before[name] != now[name]:
            changed[name] = [before[name], now[name]]
    rates = {
        old["name"]: [old["learning_rate"], new["learning_rate"]]
        for old, new in zip(before["stages"], now["stages"], strict=True)
        if old["learning_rate"] != new["learning_rate"]
    }
    return Extension(checkpoint, changed | ({"learning_rate": rates} if rates else {}))


def loop_extension(
    folder: Path, kind: str, values: Mapping[str, Any], pace: Collection[str], *, seed: int, parent: Checkpoint
) -> Extension:
    """The extension of a run by reward ("rl") or of a distillation ("dmd"), whose recipe is now `values`.

    pace: settings that may differ. Errors: `UsageError` as for `extension`.
    """
    checkpoint = last_of(folder)
    config, what = checkpoint.config, f"the run in {folder}"
    if config.get("loop", kind if kind in config else "") != kind:  # its start's configuration is in it too
        raise UsageError(f"{checkpoint.path} is not of such a run: only one of the same kind is extended")
    _require_more(checkpoint, values["steps"])
    before, now = (json.loads(json.dumps({**DEFAULTS, **recipe})) for recipe in (config[kind], values))
    if other := [k for k in now if k not in (*pace, "name", "checkpoint_every") and before.get(k) != now[k]]:
        raise UsageError(f"{what} has another {other[0]}: only {', '.join(pace)} can change; start a new run")
    if config["seed"] != seed:
        raise UsageError(f"{what} has seed {config['seed']}: give the same --seed")
    if config["init"] != parent.fingerprint:
        raise UsageError(f"{what} starts from another checkpoint: give the same one")
    return Extension(checkpoint, {k: [before[k], now[k]] for k in pace if before[k] != now[k]})


def _require_more(checkpoint: Checkpoint, steps: int) -> None:
    if steps <= checkpoint.step:
        raise UsageError(f"{checkpoint.path} has {checkpoint.step} steps: give more; they count from its start")


def last_of(folder: Path) -> Checkpoint:
    """The last checkpoint of a run, or the one that `folder` is. Errors: `UsageError` if there is none."""
    folder = fetched(folder)
    for place in (folder, folder / checkpoints.FINAL):
        if (place / "config.json").is_file():
            return Checkpoint(place)
    saved = checkpoints.steps(folder)
    if not saved:
        raise UsageError(f"{folder} has no checkpoint: give the folder of a training run")
    return saved[-1]


def recipe_of(folder: Path) -> Recipe:
    """The recipe of a run. Errors: `UsageError` if the folder has no checkpoint."""
    return from_dict(last_of(folder).config["recipe"])
