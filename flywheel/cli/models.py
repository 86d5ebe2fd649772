"""Draw with a checkpoint, and measure parts of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flywheel.cli.console import out, print_rows, say
from flywheel.cli.options import JsonOption, SeedOption
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

app = typer.Typer()
evaluate = typer.Typer(help="Measure parts of a model on their own.", no_args_is_help=True)
app.add_typer(evaluate, name="evaluate")


@app.command(epilog='Example: flywheel sample "a red circle on the left" -w w --count 4 --output pictures')
def sample(
    prompt: Annotated[str, typer.Argument(help="What to draw, or how to change the references.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder.")] = None,
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-w", help="Workspace whose promoted checkpoint draws.")
    ] = None,
    ref: Annotated[list[Path] | None, typer.Option(help="Reference image; repeat for more than one.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT; default: the largest square trained at.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; default: the checkpoint's schedule.")] = None,
    cfg: Annotated[
        float | None, typer.Option(help="Guidance weight; 1 is none. Default: the checkpoint's, or 3.")
    ] = None,
    seed: SeedOption = 0,
    count: Annotated[int, typer.Option(help="Pictures, of this seed and the ones after it.")] = 1,
    enhance: Annotated[
        str | None, typer.Option(help="Rewrite the prompt first: rules, or a folder or hub tag of a causal LM.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the pictures and their grid.")] = Path("samples"),
    as_json: JsonOption = False,
) -> None:
    """Draw pictures with a checkpoint. The same seed gives the same picture."""
    from flywheel.rounds.sample import parse_size, promoted_checkpoint, sample_pictures

    if (checkpoint is None) == (workspace is None):
        raise UsageError("give either --checkpoint DIR or --workspace W, whose promoted checkpoint is taken")
    wanted = parse_size(size) if size else None
    if enhance:
        from flywheel.presets import Enhancer
        from flywheel.remedies.enhancer import load_enhancer

        prompt = load_enhancer(Enhancer(backend=enhance))(prompt) or prompt
        say(f"drawing: {prompt}")
    made = sample_pictures(
        checkpoint or promoted_checkpoint(Workspace(workspace, create=False)),
        prompt,
        output=output,
        references=ref or (),
        size=wanted,
        steps=steps,
        cfg=cfg,
        seed=seed,
        count=count,
    )
    out(json.dumps(made, ensure_ascii=False) if as_json else "\n".join([*made["images"], made["grid"]]))


@evaluate.command("vae", epilog="Example: flywheel evaluate vae Qwen/Qwen-Image-2.1 --photographs p")
def evaluate_vae(
    models: Annotated[list[str], typer.Argument(help="Checkpoint, VAE or pipeline folders, or hub tags.")],
    photographs: Annotated[Path, typer.Option(help="Folder of photographs.")],
    count: Annotated[int, typer.Option(min=1, help="Photographs at most, and pages of text.")] = 100,
    side: Annotated[int, typer.Option(min=32, help="Pixels, both sides.")] = 256,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """PSNR and SSIM of autoencoders on photographs and on pages of small text, in the form of the report's Table 1."""
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
