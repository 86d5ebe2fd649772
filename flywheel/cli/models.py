"""Verbs that draw with a model, judge pictures of any model, and measure parts of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flywheel.cli.console import json_text, out, print_rows, say
from flywheel.cli.options import JsonOption, PresetOption, SeedOption
from flywheel.core.errors import UsageError

if TYPE_CHECKING:
    from flywheel.core.records import System
    from flywheel.core.workspace import Workspace
    from flywheel.signals.drawn_elsewhere import Drawn
    from flywheel.signals.suite import Prompt

app = typer.Typer()
evaluate = typer.Typer(help="Judge pictures of any model, or measure parts of one.", no_args_is_help=True)
app.add_typer(evaluate, name="evaluate")
model = typer.Typer(help="Import open weights, export checkpoints.", no_args_is_help=True)
app.add_typer(model, name="model")


@app.command(epilog='Example: flywheel sample "a red circle on the left" -w w --count 4 --output pictures')
def sample(
    prompt: Annotated[str, typer.Argument(help="What to draw, or how to edit the references.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of a checkpoint or a diffusers pipeline, or hub tag, to draw with.")
    ] = None,
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-w", help="Workspace whose system in service to draw with.")
    ] = None,
    student: Annotated[bool, typer.Option("--student", help="Draw with the system's few-step student.")] = False,
    ref: Annotated[list[Path] | None, typer.Option(help="Reference image to edit. Repeatable.")] = None,
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT. Default: the system's, or the largest square trained at.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps. Default: as trained, or the system's.")
    ] = None,
    cfg: Annotated[
        float | None,
        typer.Option(min=0, help="Guidance weight; 1 is no guidance. Default: the system's or the checkpoint's."),
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What to avoid in the picture.")] = None,
    seed: SeedOption = 0,
    count: Annotated[int, typer.Option(min=1, help="Number of images, with this seed and the following ones.")] = 1,
    enhance: Annotated[
        str | None, typer.Option(help="Rewrite the prompt: rules, or a causal LM (folder, tag). Default: the system's.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the images and their grid.")] = Path("samples"),
    as_json: JsonOption = False,
) -> None:
    """Draw images with a generator, or with the system in service. The same seed gives the same image."""
    from flywheel.core.workspace import Workspace
    from flywheel.generators import describe, open_generator
    from flywheel.rounds.sample import parse_size, promoted_system, sample_pictures

    if (checkpoint is None) == (workspace is None) or (student and workspace is None):
        raise UsageError("give either --checkpoint DIR or --workspace W, whose system in service is taken")
    opened = Workspace(workspace, create=False) if workspace else None
    system = promoted_system(opened, student=student) if opened else None
    start = opened.path(system.checkpoint) if opened and system else Path(str(checkpoint))
    generator = open_generator(describe(start))
    prompt = _rewritten(prompt, ref or (), enhance, opened, system)
    side = system.side if system else None
    pictures = sample_pictures(
        generator,
        str(start),
        prompt,
        output=output,
        references=ref or (),
        size=parse_size(size) if size else (side, side) if side else None,
        steps=steps or (system.steps if system else None),
        cfg=cfg if cfg is not None or system is None else system.cfg,
        negative=negative,
        seed=seed,
        count=count,
    )
    if system:
        pictures["system"] = system.id
    out(json_text(pictures) if as_json else "\n".join([*pictures["images"], pictures["grid"]]))


def _rewritten(
    prompt: str, references: Sequence[Path], enhance: str | None, opened: Workspace | None, system: System | None
) -> str:
    """The prompt as the named enhancer writes it, or else that of the system."""
    from flywheel.presets import Enhancer
    from flywheel.remedies.enhancer import load_enhancer
    from flywheel.rounds import systems

    rewrite = load_enhancer(Enhancer(backend=enhance)) if enhance else None
    if opened and system and not enhance:
        rewrite = systems.rewriter(opened, system)
    better = rewrite(prompt, [r.read_bytes() for r in references if r.is_file()]) if rewrite else None
    if better:
        say(f"drawing: {better}")
    return better or prompt


@model.command("import", epilog="Example: flywheel model import Qwen/Qwen-Image-2.1 --output start")
def import_model(
    name: Annotated[str, typer.Argument(help="Folder or hub tag of a QwenImage21Pipeline.")],
    output: Annotated[Path, typer.Option(help="Folder of the checkpoint. It must not exist yet.")],
    as_json: JsonOption = False,
) -> None:
    """Import open weights as a checkpoint, in their own precision, one tensor at a time.

    Name the folder as `start` in the section `training` of a preset: the first round judges it, later ones repair it.
    """
    from training.importing import import_pipeline

    checkpoint = import_pipeline(name, output)
    encoder = checkpoint.config["condition"]["encoder"]
    result = {"checkpoint": str(checkpoint.path), "fingerprint": checkpoint.fingerprint, "condition": encoder}
    if as_json:
        out(json_text(result))
        return
    autoencoder = checkpoint.autoencoder()
    fits = {"condition": encoder, "channels": autoencoder.channels, "factor": autoencoder.factor, "text_tokens": 0}
    fits["schedule"] = checkpoint.config["schedule"]
    said = [str(output), "in a preset:", "[training]", f"start = {str(output.resolve())!r}", "[training.recipe]"]
    out("\n".join([*said, *(f"{key} = {value!r}" for key, value in fits.items())]))


@model.command("export", epilog="Example: flywheel model export -w w --output pipeline")
def export_model(
    output: Annotated[Path, typer.Option(help="Folder of the pipeline. It must not exist yet.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder.")] = None,
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-w", help="Workspace whose checkpoint in service to export.")
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="Export the adapter of a LoRA run alone, for diffusers' `load_lora_weights`.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Export a checkpoint of 2.1's parts as a pipeline that diffusers opens: the inverse of an import.

    The adapter of a LoRA run is merged into the pipeline's weights. With --lora it is written alone, to be put on top
    of the pipeline of the checkpoint that the run started from.
    """
    from flywheel.cli.options import checkpoint_or_promoted
    from training.export import export_adapter, export_pipeline

    start = checkpoint_or_promoted(checkpoint, workspace)
    folder = export_adapter(start, output) if lora else export_pipeline(start, output)
    out(json_text({"lora" if lora else "pipeline": str(folder)}) if as_json else str(folder))


@model.command("plan", epilog="Example: flywheel model plan --gpus 8 --memory 80 --lora-rank 64")
def plan_memory(
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs over which FSDP2 shards the model.")] = 8,
    memory: Annotated[float, typer.Option(min=1, help="Memory of one GPU, GB.")] = 80,
    lora_rank: Annotated[int, typer.Option(min=1, help="Rank of the adapters in the rows of LoRA.")] = 64,
    name: Annotated[list[str] | None, typer.Option("--model", help="Model. Repeatable. Default: all.")] = None,
    side: Annotated[int, typer.Option(min=16, help="Width and height of a picture, pixels.")] = 1024,
    rows: Annotated[int, typer.Option(min=1, help="Pictures of one forward pass on a GPU.")] = 1,
    text: Annotated[int, typer.Option(min=1, help="Tokens of a caption.")] = 256,
    accumulate: Annotated[
        bool,
        typer.Option(
            "--accumulate/--no-accumulate",
            help="Does a step take several forward passes and sum gradients over GPUs once? Not so with one pass, or "
            "with `reduce_every = true` in the recipe.",
        ),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Estimate the memory of training each model: all weights or LoRA, with and without recomputation.

    GB on each GPU. state: weights, their bf16 copies and moving average, gradients, optimiser; saved: activations, for
    the backward pass; host: main memory, not the GPU's, of the copy that checkpoints are written from while training
    goes on. Not counted: condition encoder and autoencoder.
    """
    from training.memory_plan import plans

    found = plans(
        gpus=gpus, lora_rank=lora_rank, side=side, rows=rows, text_tokens=text, names=name or (), accumulate=accumulate
    )
    rows_ = [plan.row(memory) for plan in found]
    print_rows(rows_ if as_json else [_short(row) for row in rows_], as_json)


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the memory table that fits a terminal."""
    kept = ("weights", "half", "ema", "gradients", "accumulated", "optimizer")
    return {
        "model": row["model"],
        "way": row["way"],
        "recompute": "yes" if row["recompute"] else "no",
        "state GB": f"{sum(row[k] for k in kept):.1f}",
        "saved GB": f"{row['activations']:.1f}",
        "total GB": f"{row['total']:.1f}",
        "host GB": f"{row['host']:.1f}",
        "fits": "yes" if row["fits"] else "no",
    }


@evaluate.command("pictures", epilog="Example: flywheel evaluate pictures drawn/ --suite s.jsonl --system v2 -w w")
def evaluate_pictures(
    pictures: Annotated[
        Path, typer.Argument(help="Folder of pictures named <prompt_id>.png, or of one such folder per seed: 0/, 1/, …")
    ],
    suite: Annotated[Path, typer.Option(help="Suite file, also that of a workspace: w/suite/suite.jsonl.")],
    system: Annotated[str, typer.Option(help="Name of the model behind the pictures; required with -w.")] = "",
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-w", help="Record signals, open cases and route them here.")
    ] = None,
    preset: PresetOption = "tiny",
    as_json: JsonOption = False,
) -> None:
    """Judge pictures that any model drew, by the suite's own checks: one row per prompt and check.

    `passed` is null where a check could not be applied: the reason says why, for example that there is no picture. With
    a workspace, failures become cases; pictures of further seeds route them, and what is missing for that is listed.
    """
    if workspace is None:
        if system:
            raise UsageError("--system names the model in a workspace: give -w W as well, or leave it out")
        judge_only(pictures, suite, preset, as_json)
        return
    if not system.strip():
        raise UsageError("-w needs --system NAME: signals and cases name the model behind the pictures")
    from flywheel.core.workspace import Workspace
    from flywheel.presets import load_preset
    from flywheel.rounds.pictures import evaluate_pictures as evaluate
    from flywheel.signals.drawn_elsewhere import Drawn
    from flywheel.signals.pinned import load_any

    drawn, prompts = Drawn.of(pictures), load_any(suite)
    _say_left_out(drawn, prompts)
    found = evaluate(Workspace(workspace), prompts, drawn, system.strip(), load_preset(preset))
    rows = [row for judged in found.judged for row in judged.rows()]
    counts = dict(zip(("passed", "failed", "not_judged"), _count(rows)))
    kept = {"signals": found.signals, "events": found.events, "tracks": found.tracks, "needed": found.needed}
    if as_json:
        out(json_text({**counts, **kept, "needed_list": found.needed_list, "rows": rows}))
    else:
        print_rows([r for r in rows if not r["passed"]], False)
    say(_counted(rows) + f"; {found.signals} new signals")
    for name, numbers in (("cases", found.events), ("routed", found.tracks)):
        say(f"{name}: " + (", ".join(f"{n} {kind}" for kind, n in numbers.items()) or "none new"))
    for sentence in found.say:
        say(sentence)


def judge_only(pictures: Path, suite: Path, preset: str, as_json: bool) -> None:
    """Judge a folder of pictures of one seed, and print the rows; nothing is recorded."""
    from flywheel.presets import load_preset
    from flywheel.signals.drawn_elsewhere import Drawn
    from flywheel.signals.judged_pictures import judge_folder
    from flywheel.signals.judging import Verifiers
    from flywheel.signals.pinned import load_any

    drawn, prompts = Drawn.of(pictures), load_any(suite)
    _say_left_out(drawn, prompts)
    by = Verifiers.of(None, load_preset(preset).evaluation)
    rows = judge_folder(prompts, next(iter(drawn.seeds.values())), by=by)
    print_rows(rows, as_json)
    say(_counted(rows))


def _say_left_out(drawn: Drawn, suite: Sequence[Prompt]) -> None:
    """Name what in the folder is not judged."""
    for names, what in (
        (drawn.unknown(suite), "pictures belong to no prompt of the suite"),
        (drawn.others, "folders name no seed"),
    ):
        if names:
            say(f"left out: {len(names)} {what}, such as {names[0]}")


def _count(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    return [sum(r["passed"] is x for r in rows) for x in (True, False, None)]


def _counted(rows: Sequence[Mapping[str, Any]]) -> str:
    return "{} passed, {} failed, {} not judged".format(*_count(rows))


@evaluate.command("vae", epilog="Example: flywheel evaluate vae Qwen/Qwen-Image-2.1 --photographs p")
def evaluate_vae(
    models: Annotated[
        list[str], typer.Argument(help="Autoencoders: checkpoint, VAE or pipeline folders, or hub tags.")
    ],
    photographs: Annotated[Path, typer.Option(help="Folder of photographs.")],
    count: Annotated[
        int, typer.Option(min=1, help="At most this many photographs, and this many pages of text.")
    ] = 100,
    side: Annotated[int, typer.Option(min=32, help="Width and height in pixels.")] = 256,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure PSNR and SSIM of autoencoders on photographs and on pages of small text, as in the report's Table 1."""
    from flywheel.signals.vae_quality import evaluate as measure
    from flywheel.signals.vae_quality import load_photographs

    pictures = load_photographs(photographs, side=side, count=count)
    for name, reason in pictures.left_out.items():
        say(f"left out: {name}: {reason}")
    rows = measure(models, pictures, side=side, texts=count, seed=seed)
    if not as_json:
        rows = [
            {
                "model": r["model"],
                "layout": r["layout"],
                "enc/dec (M)": "{:.2f}/{:.2f}".format(*(r[f"{x}_parameters"] / 1e6 for x in ("encoder", "decoder"))),
                **{f"{x} PSNR/SSIM": f"{r[f'{x}_psnr']:.2f}/{r[f'{x}_ssim']:.4f}" for x in ("photographs", "text")},
            }
            for r in rows
        ]
    print_rows(rows, as_json)
