"""Verbs of the prompt enhancer: use it, and train the language model behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flywheel.cli.console import json_text, out
from flywheel.cli.options import JsonOption, SeedOption
from flywheel.core.workspace import Workspace

app = typer.Typer()
enhancer = typer.Typer(help="Rewrite prompts, and train the language model that rewrites them.", no_args_is_help=True)
app.add_typer(enhancer, name="enhancer")

BackendOption = Annotated[
    str, typer.Option(help="rules; a causal LM (folder or hub tag); or an endpoint, http(s)://…/v1.")
]
EndpointModelOption = Annotated[str, typer.Option("--model", help="Model name at the endpoint.")]
ModelOption = Annotated[str, typer.Option("--model", help="Causal LM to start from: folder or hub tag.")]
DataOption = Annotated[Path, typer.Option(help="train.jsonl, written by a round's enhancer remedy.")]
OutputOption = Annotated[Path, typer.Option(help="Folder for the trained model.")]
StepsOption = Annotated[int, typer.Option(min=1, help="Optimiser steps.")]
BatchOption = Annotated[int, typer.Option(min=2, help="Rows per step; in GRPO, the rewrites of one prompt.")]
LoraOption = Annotated[int, typer.Option(min=0, help="Rank of the LoRA adapters; 0 trains all weights.")]


@enhancer.command("try", epilog='Example: flywheel enhancer try "pls draw me 2 cats"')
def try_(
    prompt: Annotated[str, typer.Argument(help="Prompt as a user would write it.")],
    backend: BackendOption = "rules",
    model: EndpointModelOption = "",
    key_variable: Annotated[str, typer.Option(help="Environment variable that holds the endpoint's key.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Rewrite one prompt and print the result. Needs no workspace."""
    from flywheel.presets import Enhancer
    from flywheel.remedies.enhancer import load_enhancer

    enhanced = load_enhancer(Enhancer(backend=backend, model=model, key_variable=key_variable))(prompt)
    out(json_text({"prompt": prompt, "enhanced": enhanced}) if as_json else enhanced or prompt)


@enhancer.command(epilog="Example: flywheel enhancer sft --model qwen/ --data train.jsonl --output pe/")
def sft(
    model: ModelOption,
    data: DataOption,
    output: OutputOption,
    steps: StepsOption = 500,
    batch: BatchOption = 8,
    lora: LoraOption = 16,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a language model on (P_short, reasoning, P_fine) triples."""
    from flywheel.remedies.enhancer_training import fine_tune

    result = fine_tune(model, data, output, steps=steps, batch=batch, lora=lora, seed=seed)
    out(json_text(result) if as_json else f"{output}: loss {result['first_loss']:.3f} → {result['last_loss']:.3f}")


@enhancer.command(epilog="Example: flywheel enhancer grpo --model pe/ --data train.jsonl --output pe-rl/ -w w")
def grpo(
    model: ModelOption,
    data: DataOption,
    output: OutputOption,
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", "-w", help="Also reward images drawn by this workspace's incumbent."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts with the checks for those images: prompts.jsonl of an RL remedy.")
    ] = None,
    steps: StepsOption = 200,
    batch: BatchOption = 8,
    lora: LoraOption = 16,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train by GRPO, rewarded by rules on the text and, optionally, by checks on images drawn from it."""
    from flywheel.core.errors import UsageError
    from flywheel.remedies.enhancer_training import Drawn, reinforce
    from flywheel.rounds.sample import promoted_system

    if (workspace is None) != (prompts is None):
        raise UsageError("pass --workspace and --prompts together: one draws the images, the other has their checks")
    drawn = None
    if workspace and prompts:
        opened = Workspace(workspace, create=False)
        system = promoted_system(opened)
        if system.side is None:
            raise UsageError("the system in service does not say at which size it draws: run a round first")
        drawn = Drawn(opened.path(system.checkpoint), prompts, system.side, seed=seed)
    result = reinforce(model, data, output, drawn=drawn, steps=steps, batch=batch, lora=lora, seed=seed)
    out(
        json_text(result) if as_json else f"{output}: reward {result['first_reward']:.3f} → {result['last_reward']:.3f}"
    )
