"""The prompt enhancer: use it, and train the language model behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flywheel.cli.console import out
from flywheel.cli.options import JsonOption, SeedOption
from flywheel.core.workspace import Workspace

app = typer.Typer()
enhancer = typer.Typer(help="Rewrite prompts, and train the language model that does.", no_args_is_help=True)
app.add_typer(enhancer, name="enhancer")

BackendOption = Annotated[str, typer.Option(help="rules, a folder or hub tag of a causal LM, or http(s)://…/v1.")]
EndpointModelOption = Annotated[str, typer.Option("--model", help="Model of an endpoint.")]
ModelOption = Annotated[str, typer.Option("--model", help="Folder or hub tag of the causal LM to start from.")]
DataOption = Annotated[Path, typer.Option(help="train.jsonl that a round wrote.")]
OutputOption = Annotated[Path, typer.Option(help="Folder for the trained model.")]
StepsOption = Annotated[int, typer.Option(min=1, help="Optimiser steps.")]
BatchOption = Annotated[int, typer.Option(min=2, help="Rows per step; for GRPO the size of a prompt's group.")]
LoraOption = Annotated[int, typer.Option(min=0, help="Rank of LoRA adapters; 0 trains every weight.")]


@enhancer.command("try", epilog='Example: flywheel enhancer try "pls draw me 2 cats"')
def try_(
    prompt: Annotated[str, typer.Argument(help="A prompt as a user would write it.")],
    backend: BackendOption = "rules",
    model: EndpointModelOption = "",
    key_variable: Annotated[str, typer.Option(help="Environment variable with the endpoint's key.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Rewrite one prompt."""
    from flywheel.presets import Enhancer
    from flywheel.remedies.enhancer import load_enhancer

    found = load_enhancer(Enhancer(backend=backend, model=model, key_variable=key_variable))(prompt)
    out(json.dumps({"prompt": prompt, "enhanced": found}, ensure_ascii=False) if as_json else found or prompt)


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
    """Fine-tune on (P_short, reasoning, P_fine) triples."""
    from flywheel.remedies.enhancer_training import fine_tune

    found = fine_tune(model, data, output, steps=steps, batch=batch, lora=lora, seed=seed)
    out(json.dumps(found) if as_json else f"{output}: loss {found['first_loss']:.3f} → {found['last_loss']:.3f}")


@enhancer.command(epilog="Example: flywheel enhancer grpo --model pe/ --data train.jsonl --output pe-rl/ -w w")
def grpo(
    model: ModelOption,
    data: DataOption,
    output: OutputOption,
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", "-w", help="Its incumbent draws what is judged; without it only texts are."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts with checks to judge drawings by: a prompts.jsonl of the RL remedy.")
    ] = None,
    steps: StepsOption = 200,
    batch: BatchOption = 8,
    lora: LoraOption = 16,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Reinforce by rules for the text, and by pictures that the frozen generator draws from the rewritten prompt."""
    from flywheel.core.errors import UsageError
    from flywheel.remedies.enhancer_training import Drawn, reinforce
    from flywheel.rounds.sample import promoted_checkpoint

    if (workspace is None) != (prompts is None):
        raise UsageError("give --workspace and --prompts together: one draws, the other says how to judge")
    drawn = None
    if workspace and prompts:
        drawn = Drawn(promoted_checkpoint(Workspace(workspace, create=False)), prompts, seed=seed)
    found = reinforce(model, data, output, drawn=drawn, steps=steps, batch=batch, lora=lora, seed=seed)
    out(json.dumps(found) if as_json else f"{output}: reward {found['first_reward']:.3f} → {found['last_reward']:.3f}")
