"""Verbs that train a phase or an autoencoder, and encode shards once for many runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flywheel.cli.console import json_text, of_first_process, out
from flywheel.cli.options import JsonOption, SeedOption
from flywheel.core.errors import UsageError
from flywheel.core.storage import located

if TYPE_CHECKING:
    from flywheel.core.progress import Progress
    from training.checkpoint import Checkpoint
    from training.recipes import Recipe
    from training.worker import TrainingRun

app = typer.Typer()
train = typer.Typer(help="Train a recipe on shards, or an autoencoder on images.", invoke_without_command=True)
app.add_typer(train, name="train")

HELP = """Train a recipe on curation shards, stage by stage. After a crash or stop, the same command resumes.

A recipe is qwen-image-2 (the stages S1 to S6), its parts pretrain (S1–S3), continual (S4, S5) and sft (S6), or tiny, or
a TOML file: `base = "tiny"` and the settings that differ, such as `stages = ["S1", "S2"]`, `steps = 500` (of all
stages together), `S4 = { steps = 50, t2i_share = 0.7 }`, `batch = { 64 = 16 }`, `micro_tokens = 16384`,
`activation_checkpointing = true`, `lora_rank = 64` (adapters alone train, on top of --init), `sample_every = 500`,
`latents = "folder"` (see flywheel latents) or `on_error = "skip"`.

Several processes can train one model; FSDP2 shards its weights. Their number may change when training resumes:

  one machine: torchrun --nproc-per-node 8 -m flywheel.cli train --recipe …

  a Ray cluster (RAY_ADDRESS, or this machine): flywheel train --ray 8 --gpus --recipe …

To go on from a finished run, longer or at another learning rate; the checkpoints record what they came from:

  flywheel train --extend run --shards … --output longer --steps 400 --learning-rate 1e-4
"""
EPILOG = "Example: flywheel train --recipe tiny --shards w/shards/SNAPSHOT.json --output run --steps 200"


@train.callback(help=HELP, epilog=EPILOG)
def phase(
    context: typer.Context,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe: built-in name or .toml file. Default: tiny, or the extended run's.")
    ] = None,
    shards: Annotated[
        list[Path] | None, typer.Option(help="Shard manifest. Repeat to mix several in equal parts.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for checkpoints, metrics and samples.")] = None,
    init: Annotated[Path | None, typer.Option(help="Checkpoint to start from. Default: random weights.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps. Default: the recipe's.")] = None,
    extend: Annotated[
        Path | None,
        typer.Option(help="Run to go on from, into another folder: to more --steps, or at another --learning-rate."),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, help="Of every stage. Default: the recipe's.")] = None,
    seed: SeedOption = 0,
    ray: Annotated[int, typer.Option(min=0, help="Number of Ray workers that train together; 0: no Ray.")] = 0,
    gpus: Annotated[bool, typer.Option("--gpus", help="Give each Ray worker a GPU.")] = False,
    tracker: Annotated[
        list[str] | None,
        typer.Option(help="tensorboard, wandb or mlflow gets the metrics too; repeatable. Default: FLYWHEEL_TRACKERS."),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", hidden=True)] = False,  # as --tracker tensorboard
    as_json: JsonOption = False,
) -> None:
    """Train a recipe on curation shards."""
    if context.invoked_subcommand:
        return
    if not shards or output is None:
        raise UsageError("give --shards MANIFEST, once per manifest, and --output DIR; see flywheel train --help")
    if init is not None and not located(init).is_dir():
        raise UsageError(f"--init {init} is not a folder: pass a checkpoint folder")
    from flywheel.core.progress import Progress
    from training.extension import recipe_of
    from training.trackers import chosen as chosen_trackers
    from training.worker import TrainingRun

    chosen = _recipe(recipe or "tiny") if recipe or extend is None else recipe_of(extend)
    if learning_rate is not None:
        chosen = chosen.change(learning_rate=learning_rate)
    run = TrainingRun(
        out_dir=str(output),
        sources=[{"manifest": _whole(path)} for path in shards],
        recipe=chosen.to_dict(),
        steps=steps or chosen.steps,
        seed=seed,
        init=_whole(init) if init else None,
        extend=_whole(extend) if extend else None,
    )
    trackers = chosen_trackers([*(tracker or ()), *["tensorboard"] * tensorboard] or None)
    progress = Progress()
    if not extend:
        _announce(chosen, shards, run.steps, progress)
    train = partial(_on_ray, workers=ray, gpus=gpus) if ray else _here
    checkpoint = train(run, chosen.name, progress, trackers=trackers)
    if of_first_process():
        _print_phase(checkpoint, output / "metrics.jsonl", chosen.on_error == "skip", as_json)


def _announce(recipe: Recipe, shards: Sequence[Path], steps: int, progress: Progress) -> None:
    """Say which stages the data has rows for, and how long each one trains."""
    from training.curriculum import schedule
    from training.data.plan import MixSource

    for line in schedule(recipe, [MixSource(manifest=path) for path in shards], steps).lines():
        progress.say(line)


def _here(run: TrainingRun, name: str, progress: Progress, *, trackers: Sequence[str]) -> Checkpoint:
    """Train in this process; returns the final checkpoint."""
    from training.worker import train_run

    def report(done: int, total: int, line: Mapping[str, Any]) -> None:
        progress(done, total, f"loss {line['loss']:.3f} ({line['stage']})")

    with progress.step(f"training {name}"):
        return train_run(run, progress=report, trackers=trackers)


def _whole(path: Path) -> str:
    return str(located(path).resolve())


def _on_ray(run: TrainingRun, name: str, progress: Progress, *, workers: int, **more: Any) -> Checkpoint:
    from flywheel.core.cluster import cluster
    from training.ray_train import train_on_ray

    with (
        progress.step(f"training {name} on {workers} Ray workers"),
        cluster(max(workers, os.cpu_count() or 1), ray_only=True),
    ):
        return train_on_ray(run, workers=workers, progress=progress, **more)


def _print_phase(checkpoint: Checkpoint, metrics: Path, skips: bool, as_json: bool) -> None:
    from training.checkpoint import read_metrics

    lines = read_metrics(metrics)
    last = lines[-1]
    result = {
        "checkpoint": str(checkpoint.path),
        "step": checkpoint.step,
        "fingerprint": checkpoint.fingerprint,
        **{k: last.get(k) for k in ("stage", "loss", "validation_loss", "samples")},
        **({"skipped": sum(line.get("skipped", 0) for line in lines)} if skips else {}),
        "metrics": str(metrics),
    }
    out(json_text(result) if as_json else "\n".join(f"{k}: {v}" for k, v in result.items() if v is not None))


@train.command("vae", epilog="Example: flywheel train vae --images photos --output vae --steps 2000")
def vae(
    images: Annotated[Path, typer.Option(help="Folder of images.")],
    output: Annotated[Path, typer.Option(help="Folder for the VAE; diffusers opens its subfolder `final`.")],
    preset: Annotated[
        str, typer.Option(help="tiny, qwen-image-2 (the report's size, for GPUs), or a .toml file.")
    ] = "tiny",
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps. Default: the preset's.")] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a VAE on image crops, for use as a recipe's autoencoder. The same command resumes.

    Several processes share each batch: torchrun --nproc-per-node 8 -m flywheel.cli train vae …
    """
    from flywheel.core.progress import Progress
    from flywheel.signals.vae_quality import load_photographs
    from training.distributed import joined
    from training.vae.training import load_vae_recipe, train_vae

    chosen = load_vae_recipe(preset)
    progress = Progress()
    pictures = load_photographs(images, side=chosen.load)
    for name, reason in pictures.left_out.items():
        progress.say(f"left out: {name}: {reason}")

    def report(done: int, total: int, line: Mapping[str, Any]) -> None:
        progress(done, total, f"reconstruction {line['reconstruction']:.3f}")

    with joined() as world, progress.step(f"training a {preset} VAE on {len(pictures.images)} images"):
        folder = train_vae(output, pictures.images, chosen, seed=seed, steps=steps, world=world, progress=report)
    if not of_first_process():
        return
    result = {"vae": str(folder), "autoencoder": f'autoencoder = "{folder.resolve()}"', "steps": steps or chosen.steps}
    out(json_text(result) if as_json else f"{folder}\nin a recipe: {result['autoencoder']}")


@app.command("latents", epilog="Example: flywheel latents --recipe r.toml --shards w/shards/SNAPSHOT.json --output l")
def latents(
    shards: Annotated[list[Path], typer.Option(help="Shard manifest. Repeatable.")],
    output: Annotated[Path, typer.Option(help="Folder for the latents, one file per shard.")],
    recipe: Annotated[str, typer.Option(help="Recipe to encode for: its stages, resolutions and dtype.")] = "tiny",
    autoencoder: Annotated[
        str | None, typer.Option(help="Checkpoint, VAE or pipeline folder, or hub tag. Default: the recipe's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Encode shards once; recipes with `latents = "folder"` train on the result. The same command resumes."""
    from flywheel.core.progress import Progress
    from flywheel.signals.vae_quality import open_autoencoder
    from training.data.latents import Latents, write_latents
    from training.data.plan import read_manifest

    chosen = _recipe(recipe)
    if autoencoder is None and chosen.autoencoder in ("patch", "tiny-vae"):
        raise UsageError(
            f"recipe {chosen.name} fits its {chosen.autoencoder} autoencoder to the data: give --autoencoder, the "
            "checkpoint that training starts from or resumes"
        )
    encoder = open_autoencoder(autoencoder or chosen.autoencoder)
    stages = [stage.name for stage in chosen.stages]
    wanted = [s for path in shards for s in read_manifest(path, stages) if s.bucket in chosen.batch]
    if not wanted:
        raise UsageError(
            f"no shards of {', '.join(stages)} and buckets {', '.join(map(str, chosen.batch))}: "
            "pass another recipe or manifest"
        )
    files = Latents(output, encoder.fingerprint, chosen.resolution, chosen.latents_dtype, chosen.factor)
    progress = Progress()
    with progress.step(f"encoding {len(wanted)} shards"):
        broken = write_latents(wanted, encoder, files, skip=chosen.on_error == "skip", progress=progress)
    for (shard, group, row), reason in broken.items():
        progress.say(f"left null: row {row} of row group {group} of {shard}: {reason}")
    rows = sum(s.rows for s in wanted)
    result = {"latents": str(output.resolve()), "shards": len(wanted), "rows": rows, "skipped": len(broken)}
    out(json_text(result) if as_json else f"{output}\nin a recipe: latents = {result['latents']!r}")


def _recipe(name: str) -> Recipe:
    """A recipe by name or file. A local folder of latents becomes absolute, for workers in other folders."""
    from training.recipes import load_recipe, recipe

    chosen = load_recipe(Path(name)) if name.endswith(".toml") else recipe(name)
    local = chosen.latents and not chosen.latents.startswith("s3://")
    return chosen.change(latents=str(Path(chosen.latents).resolve())) if local else chosen
