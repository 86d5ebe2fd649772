"""Verbs that draw with a checkpoint and measure parts of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flywheel.cli.console import out, print_rows, say
from flywheel.cli.options import JsonOption, SeedOption
from flywheel.core.errors import UsageError

app = typer.Typer()
evaluate = typer.Typer(help="Measure parts of a model.", no_args_is_help=True)
app.add_typer(evaluate, name="evaluate")


@app.command(epilog='Example: flywheel sample "a red circle on the left" -w w --count 4 --output pictures')
def sample(
    prompt: Annotated[str, typer.Argument(help="What to draw, or how to edit the references.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder to draw with.")] = None,
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-w", help="Workspace whose system in service to draw with.")
    ] = None,
    student: Annotated[
        bool, typer.Option("--student", help="Draw with the few-step student of the workspace's system.")
    ] = False,
    ref: Annotated[list[Path] | None, typer.Option(help="Reference image to edit. Repeatable.")] = None,
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT. Default: the system's, or the largest square trained at.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps. Default: the system's or the checkpoint's.")
    ] = None,
    cfg: Annotated[
        float | None, typer.Option(help="Guidance weight; 1 is no guidance. Default: the system's or the checkpoint's.")
    ] = None,
    seed: SeedOption = 0,
    count: Annotated[int, typer.Option(help="Number of images, with this seed and the following ones.")] = 1,
    enhance: Annotated[
        str | None,
        typer.Option(
            help="Rewrite the prompt with: rules, or a causal LM (folder or hub tag). Default: as the system."
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the images and their grid.")] = Path("samples"),
    as_json: JsonOption = False,
) -> None:
    """Draw images with a checkpoint, or with the system in service. The same seed gives the same image."""
    from flywheel.core.workspace import Workspace
    from flywheel.presets import Enhancer
    from flywheel.remedies.enhancer import load_enhancer
    from flywheel.rounds import systems
    from flywheel.rounds.sample import parse_size, promoted_system, sample_pictures

    if (checkpoint is None) == (workspace is None) or (student and workspace is None):
        raise UsageError("give either --checkpoint DIR or --workspace W, whose system in service is taken")
    opened = Workspace(workspace, create=False) if workspace else None
    system = promoted_system(opened, student=student) if opened else None
    start = opened.path(system.checkpoint) if opened and system else Path(str(checkpoint))
    rewrite = load_enhancer(Enhancer(backend=enhance)) if enhance else None
    if opened and system and not enhance:
        rewrite = systems.rewriter(opened, system)
    if rewrite and (better := rewrite(prompt)):
        prompt = better
        say(f"drawing: {prompt}")
    side = system.side if system else None
    pictures = sample_pictures(
        start,
        prompt,
        output=output,
        references=ref or (),
        size=parse_size(size) if size else (side, side) if side else None,
        steps=steps or (system.steps if system else None),
        cfg=cfg if cfg is not None or system is None else system.cfg,
        seed=seed,
        count=count,
    )
    if system:
        pictures["system"] = system.id
    out(json.dumps(pictures, ensure_ascii=False) if as_json else "\n".join([*pictures["images"], pictures["grid"]]))


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
