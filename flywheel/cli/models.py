"""Verbs that draw with a checkpoint and measure parts of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flywheel.cli.console import out, print_rows, say
from flywheel.cli.options import JsonOption, SeedOption, checkpoint_or_promoted

app = typer.Typer()
evaluate = typer.Typer(help="Measure parts of a model.", no_args_is_help=True)
app.add_typer(evaluate, name="evaluate")


@app.command(epilog='Example: flywheel sample "a red circle on the left" -w w --count 4 --output pictures')
def sample(
    prompt: Annotated[str, typer.Argument(help="What to draw, or how to edit the references.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder to draw with.")] = None,
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-w", help="Workspace whose promoted checkpoint to draw with.")
    ] = None,
    ref: Annotated[list[Path] | None, typer.Option(help="Reference image to edit. Repeatable.")] = None,
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT. Default: the largest square it was trained at.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps. Default: the checkpoint's schedule.")] = None,
    cfg: Annotated[
        float | None, typer.Option(help="Guidance weight; 1 is no guidance. Default: the checkpoint's, or 3.")
    ] = None,
    seed: SeedOption = 0,
    count: Annotated[int, typer.Option(help="Number of images, with this seed and the following ones.")] = 1,
    enhance: Annotated[
        str | None, typer.Option(help="Rewrite the prompt first, with: rules, or a causal LM (folder or hub tag).")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the images and their grid.")] = Path("samples"),
    as_json: JsonOption = False,
) -> None:
    """Draw images with a checkpoint. The same seed gives the same image."""
    from flywheel.rounds.sample import parse_size, sample_pictures

    start, wanted = checkpoint_or_promoted(checkpoint, workspace), parse_size(size) if size else None
    if enhance:
        from flywheel.presets import Enhancer
        from flywheel.remedies.enhancer import load_enhancer

        prompt = load_enhancer(Enhancer(backend=enhance))(prompt) or prompt
        say(f"drawing: {prompt}")
    pictures = sample_pictures(
        start,
        prompt,
        output=output,
        references=ref or (),
        size=wanted,
        steps=steps,
        cfg=cfg,
        seed=seed,
        count=count,
    )
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
