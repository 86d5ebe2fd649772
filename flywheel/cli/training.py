"""Train one phase on shards, or an autoencoder on pictures; encode shards once for many runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flywheel.cli.console import out
from flywheel.cli.options import JsonOption, SeedOption
from flywheel.core.errors import UsageError
from flywheel.core.storage import located

if TYPE_CHECKING:
    from training.recipes import Recipe

app = typer.Typer()
train = typer.Typer(help="Train one phase on shards, or an autoencoder on pictures.", invoke_without_command=True)
app.add_typer(train, name="train")

HELP = """Train one phase on curation shards. Killed or stopped? The same command goes on where it was.

A recipe is pretrain, continual, sft or tiny, or a TOML file: `base = "tiny"` and what differs, such as
`batch = { 64 = 16 }`, `micro_tokens = 16384`, `activation_checkpointing = true`, `sample_every = 500`,
`latents = "folder"` (see flywheel latents) or `on_error = "skip"`.

Several processes train one model, weights divided by FSDP2; their number may change from one start to the next:

  one machine: torchrun --nproc-per-node 8 -m flywheel.cli train --recipe …

  a Ray cluster (RAY_ADDRESS, or this machine): flywheel train --ray 8 --gpus --recipe …
"""
EPILOG = "Example: flywheel train --recipe tiny --shards w/shards/manifest.json --output run --steps 200"


@train.callback(help=HELP, epilog=EPILOG)
def phase(
    context: typer.Context,
    recipe: Annotated[str, typer.Option(help="A phase by name, or a recipe's .toml file.")] = "tiny",
    shards: Annotated[list[Path] | None, typer.Option(help="Shard manifest; repeat to mix several equally.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for checkpoints, metrics and samples.")] = None,
    init: Annotated[Path | None, typer.Option(help="Checkpoint to start from.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps; default: the recipe's.")] = None,
    seed: SeedOption = 0,
    ray: Annotated[int, typer.Option(min=0, help="Ray workers that train together; 0: no Ray.")] = 0,
    gpus: Annotated[bool, typer.Option("--gpus", help="A GPU for each Ray worker.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard events too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train one phase on curation shards."""
    if context.invoked_subcommand:
        return
    if not shards or output is None:
        raise UsageError("give --shards MANIFEST, once for each, and --output DIR; see flywheel train --help")
    if init is not None and not located(init).is_dir():
        raise UsageError(f"--init {init} is no checkpoint's folder")
    from flywheel.core.progress import Progress
    from training.checkpoint import read_metrics
    from training.worker import TrainingRun, train_run

    chosen = _recipe(recipe)
    run = TrainingRun(
        out_dir=str(output),
        sources=[{"manifest": str(located(path).resolve())} for path in shards],
        recipe=chosen.to_dict(),
        steps=steps or chosen.steps,
        seed=seed,
        init=init and str(located(init).resolve()),
    )
    progress = Progress()
    if ray:
        from flywheel.core.cluster import cluster
        from training.ray_train import train_on_ray

        with progress.step(f"training {chosen.name} on {ray} Ray workers"), cluster(max(ray, os.cpu_count() or 1)):
            checkpoint = train_on_ray(run, workers=ray, gpus=gpus, tensorboard=tensorboard, progress=progress)
    else:

        def report(done: int, total: int, line: dict[str, Any]) -> None:
            progress(done, total, f"loss {line['loss']:.3f}")

        with progress.step(f"training {chosen.name}"):
            checkpoint = train_run(run, progress=report, tensorboard=tensorboard)
    if int(os.environ.get("RANK", "0")):
        return  # the first of torchrun's processes speaks for all
    lines = read_metrics(output / "metrics.jsonl")
    last, skipped = lines[-1], sum(line.get("skipped", 0) for line in lines)
    made = {
        "checkpoint": str(checkpoint.path),
        "step": checkpoint.step,
        "fingerprint": checkpoint.fingerprint,
        **{k: last.get(k) for k in ("loss", "validation_loss", "samples")},
        **({"skipped": skipped} if chosen.on_error == "skip" else {}),
        "metrics": str(output / "metrics.jsonl"),
    }
    out(json.dumps(made) if as_json else "\n".join(f"{k}: {v}" for k, v in made.items() if v is not None))


@train.command("vae", epilog="Example: flywheel train vae --images photos --output vae --steps 2000")
def vae(
    images: Annotated[Path, typer.Option(help="Folder of pictures.")],
    output: Annotated[Path, typer.Option(help="Folder for the VAE; its subfolder `final` opens in diffusers.")],
    preset: Annotated[str, typer.Option(help="tiny, or a .toml file.")] = "tiny",
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps; default: the preset's.")] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a VAE on crops of pictures; a recipe names the result as its autoencoder. Resumes like a phase."""
    from flywheel.core.progress import Progress
    from flywheel.signals.vae_quality import load_photographs
    from training.vae.training import load_vae_recipe, train_vae

    chosen = load_vae_recipe(preset)
    progress = Progress()
    pictures = load_photographs(images, side=chosen.load)
    for name, reason in pictures.left_out.items():
        progress.say(f"left out: {name}: {reason}")

    def report(done: int, total: int, line: dict[str, Any]) -> None:
        progress(done, total, f"reconstruction {line['reconstruction']:.3f}")

    with progress.step(f"training a {preset} VAE on {len(pictures.images)} pictures"):
        folder = train_vae(output, pictures.images, chosen, seed=seed, steps=steps, progress=report)
    made = {"vae": str(folder), "autoencoder": f'autoencoder = "{folder.resolve()}"', "steps": steps or chosen.steps}
    out(json.dumps(made) if as_json else f"{folder}\nin a recipe: {made['autoencoder']}")


@app.command("latents", epilog="Example: flywheel latents --recipe r.toml --shards w/shards/manifest.json --output l")
def latents(
    shards: Annotated[list[Path], typer.Option(help="Shard manifest; repeat for several.")],
    output: Annotated[Path, typer.Option(help="Folder for the latents, a file for each shard.")],
    recipe: Annotated[str, typer.Option(help="The phase they are for: its stages, resolutions and dtype.")] = "tiny",
    autoencoder: Annotated[
        str | None, typer.Option(help="Checkpoint, VAE or pipeline folder, or hub tag; default: the recipe's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Encode shards once: a recipe with `latents = "folder"` trains on the result. Resumes; what is there stays."""
    from flywheel.core.progress import Progress
    from flywheel.signals.vae_quality import open_autoencoder
    from training.data.latents import Latents, write_latents
    from training.data.plan import read_manifest

    chosen = _recipe(recipe)
    if autoencoder is None and chosen.autoencoder in ("patch", "tiny-vae"):
        raise UsageError(
            f"recipe {chosen.name} makes its {chosen.autoencoder} autoencoder from the data: give --autoencoder, the "
            "checkpoint that training starts from or goes on with"
        )
    found = open_autoencoder(autoencoder or chosen.autoencoder)
    wanted = [s for path in shards for s in read_manifest(path, chosen.stages) if s.bucket in chosen.batch]
    if not wanted:
        raise UsageError(
            f"no shards of {', '.join(chosen.stages) or 'any stage'} and buckets {', '.join(map(str, chosen.batch))}: "
            "name another recipe or manifest"
        )
    kept = Latents(output, found.fingerprint, chosen.resolution, chosen.latents_dtype)
    progress = Progress()
    with progress.step(f"encoding {len(wanted)} shards"):
        broken = write_latents(wanted, found, kept, skip=chosen.on_error == "skip", progress=progress)
    for (shard, group, row), reason in broken.items():
        progress.say(f"left null: row {row} of row group {group} of {shard}: {reason}")
    made = {"latents": str(output.resolve()), "shards": len(wanted), "rows": sum(s.rows for s in wanted)}
    made["skipped"] = len(broken)
    out(json.dumps(made) if as_json else f"{output}\nin a recipe: latents = {made['latents']!r}")


def _recipe(name: str) -> Recipe:
    """A phase by name or file; a local folder of latents as an absolute path, for workers that run elsewhere."""
    from training.recipes import load_recipe, recipe

    chosen = load_recipe(Path(name)) if name.endswith(".toml") else recipe(name)
    local = chosen.latents and not chosen.latents.startswith("s3://")
    return chosen.change(latents=str(Path(chosen.latents).resolve())) if local else chosen
