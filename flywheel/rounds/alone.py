"""The training of one track outside a round: RL, the prompt enhancer, distillation.

Each starts from what is in service and follows the latest remedy that a round has written. The folder is named by
everything that decides the result: the same call resumes an interrupted run, and finds a finished one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.lens import latest_snapshot, shard_manifest
from flywheel.core.mirror import fetched, publish
from flywheel.core.progress import Progress
from flywheel.core.workspace import Workspace
from flywheel.presets import Enhancer, load_preset
from flywheel.remedies.held_out import HeldOut
from flywheel.rounds.promotion import require_incumbent
from flywheel.rounds.tracks import scorer_options, trained_as, whole_folder
from flywheel.signals import hidden
from flywheel.signals.suite import load_suite


def reinforce(workspace: Workspace, preset: str, *, steps: int | None, seed: int, progress: Progress) -> Path:
    """RL of the checkpoint in service on the latest RL remedy, in as many processes as the preset says.

    Returns its checkpoint. steps: default, the remedy's recipe. Errors: `UsageError` if no checkpoint is promoted or no
    round wrote a remedy.
    """
    from flywheel.remedies.prompts import rl_remedy
    from flywheel.remedies.reinforce import reward_line
    from training.recipe_file import load
    from training.rl.recipe import RL_RECIPES

    remedy, init = rl_remedy(workspace, None), workspace.path(require_incumbent(workspace).checkpoint)
    settings, file = load_preset(preset), str(fetched(remedy / "recipe.toml"))
    recipe = load(file, RL_RECIPES)
    recipe = replace(recipe, steps=steps or recipe.steps)
    folder = _folder(workspace, "rl", str(remedy), str(init), recipe.to_dict(), seed)
    given = {"prompts": str(remedy / "prompts.jsonl"), "recipe": file, "init": str(init), "seed": seed}
    given["scorers"] = scorer_options(settings.evaluation.scorers)
    call, note = "flywheel.remedies.reinforce:reinforce_as", _shown(progress, reward_line)
    final = trained_as(settings, folder, call, recipe.steps, given, note, progress.say)
    publish(folder)
    return folder / final.name


def fine_tune(workspace: Workspace, preset: str, *, seed: int) -> Path:
    """SFT of the preset's enhancer on the examples of the latest round that wrote some; returns the model's folder.

    Errors: `UsageError` if the preset's enhancer has no weights to train, or no round wrote examples.
    """
    from flywheel.remedies.enhancer_training import fine_tune as train

    settings, examples = _trainable(preset), _examples(workspace)
    options = {"steps": settings.sft_steps, "batch": settings.batch, "lora": settings.lora, "seed": seed}
    folder = _enhancer_folder(workspace, "sft", settings, examples, options)
    return whole_folder(folder, lambda unfinished: train(settings.backend, fetched(examples), unfinished, **options))


def reinforce_enhancer(workspace: Workspace, preset: str, model: Path, *, seed: int) -> Path:
    """GRPO of a fine-tuned enhancer, rewarded by rules on its text; returns the model's folder.

    Errors: as `fine_tune`.
    """
    from flywheel.remedies.enhancer_training import reinforce as train

    settings, examples = _trainable(preset), _examples(workspace)
    options: dict[str, Any] = {"steps": settings.grpo_steps, "batch": settings.batch, "lora": settings.lora}
    options["seed"] = seed
    folder = _enhancer_folder(workspace, "grpo", settings, examples, options)
    return whole_folder(folder, lambda unfinished: train(str(fetched(model)), fetched(examples), unfinished, **options))


def distil(workspace: Workspace, recipe: str, *, prompts: int, seed: int, progress: Progress) -> Path:
    """Distil the checkpoint in service on captions of the latest snapshot; returns the student's checkpoint.

    Errors: `UsageError` if no checkpoint is promoted, or for an unknown recipe.
    """
    from flywheel.remedies.prompts import pool_prompts
    from training.dmd.recipe import DMD_RECIPES
    from training.dmd.trainer import train
    from training.recipe_file import load

    chosen, init = load(recipe, DMD_RECIPES), workspace.path(require_incumbent(workspace).checkpoint)
    snapshot = latest_snapshot(workspace)
    folder = _folder(workspace, "student", str(init), chosen.to_dict(), snapshot, prompts, seed)
    suite = workspace.path("distil", folder.name, "prompts.jsonl")
    if not suite.exists():
        manifest = shard_manifest(workspace, str(snapshot))
        held_out = HeldOut(p.text for p in hidden.held_out(workspace))
        pool_prompts(manifest, suite, prompts, held_out, seed=seed)
    note = _shown(progress, lambda line: f"fake loss {line['fake_loss']:.3f}")
    final = train(fetched(folder), load_suite(suite), chosen, init=init, seed=seed, progress=note)
    publish(folder)
    return folder / final.path.name


def _folder(workspace: Workspace, kind: str, *inputs: Any) -> Path:
    return workspace.path("checkpoints", f"{kind}-{digest(*inputs)[:12]}")


def _enhancer_folder(
    workspace: Workspace, kind: str, settings: Enhancer, examples: Path, options: Mapping[str, Any]
) -> Path:
    inputs = digest(settings.backend, str(examples), sorted(options.items()))
    return workspace.path("enhancers", f"alone-{inputs[:12]}", kind)


def _trainable(preset: str) -> Enhancer:
    settings = load_preset(preset).enhancer
    if not settings.trainable:
        raise UsageError(
            f"the enhancer of preset {preset} is {settings.backend}, which has no weights to train: set "
            "enhancer.backend to the folder or hub tag of a causal LM"
        )
    return settings


def _examples(workspace: Workspace) -> Path:
    written = [path for r in workspace.remedies() if (path := r / "enhancer" / "train.jsonl").exists()]
    if not written:
        raise UsageError(f"{workspace.root} has no enhancer remedy: a round writes one for cases on that track")
    return written[-1]


def _shown(
    progress: Progress, note: Callable[[Mapping[str, Any]], str]
) -> Callable[[int, int, Mapping[str, Any]], None]:
    return lambda done, total, line: progress(done, total, note(line))
