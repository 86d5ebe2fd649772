"""Reinforcement learning and distillation of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flywheel.cli.console import out, say
from flywheel.cli.options import JsonOption, SeedOption, WorkspaceOption
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

app = typer.Typer()
rl = typer.Typer(help="Reinforcement learning: prompts, reward service, training.", no_args_is_help=True)
app.add_typer(rl, name="rl")

CheckpointOption = Annotated[Path | None, typer.Option(help="Checkpoint folder to start from.")]
PromotedOption = Annotated[
    Path | None, typer.Option("--workspace", "-w", help="Workspace whose promoted checkpoint is the start.")
]
PromptsOption = Annotated[Path, typer.Option(help="Suite file (JSON lines) of the prompts to train on.")]
OutputOption = Annotated[Path, typer.Option(help="Folder of the run; run again to resume.")]
ScorersOption = Annotated[
    Path | None, typer.Option(help="TOML: a table of options by scorer, such as clip's model and pretrained.")
]


@rl.command("prompts", epilog="Example: flywheel rl prompts -w w --output prompts.jsonl --count 64")
def prompts(
    workspace: WorkspaceOption,
    output: Annotated[Path, typer.Option(help="Suite file to write.")],
    capability: Annotated[
        list[str] | None, typer.Option(help="Repeat for several; default: those of the open RL cases.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Prompts per capability.")] = 64,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Write prompts with checks for the capabilities of open RL cases; the held-out suite's meanings are left out."""
    from flywheel.cases.events import load_cases
    from flywheel.remedies.prompts import rl_capabilities, write_prompts
    from flywheel.signals.suite import load_suite

    opened = Workspace(workspace, create=False)
    suite = load_suite(opened.path("suite", "suite.jsonl"))
    named = capability or rl_capabilities(list(load_cases(opened).values()))
    made = write_prompts(output, named, count, seed=seed, exclude=frozenset(p.text for p in suite))
    out(json.dumps(made) if as_json else "\n".join(f"{name}: {n} prompts" for name, n in made.items()))


@rl.command("serve", epilog="Example: flywheel rl serve --reward instruction --reward ocr --port 8400")
def serve(
    reward: Annotated[list[str], typer.Option(help="Reward to serve; repeat for several.")],
    scorers: ScorersOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8400,
) -> None:
    """Serve rewards over HTTP, for `flywheel rl train --rewards URL`."""
    import uvicorn

    from flywheel.remedies.reward_service import service

    uvicorn.run(service(_local(tuple(dict.fromkeys(reward)), scorers)), host=host, port=port, log_level="warning")


@rl.command("train", epilog="Example: flywheel rl train -w w --output rl")
def train(
    output: OutputOption,
    workspace: PromotedOption = None,
    checkpoint: CheckpointOption = None,
    round_: Annotated[
        int | None, typer.Option("--round", help="Whose RL remedy to follow; default: the latest that has one.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="Suite file to train on; default: the RL remedy's.")] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Suite file that is only watched; default: some of the prompts, kept apart.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="rl, rl-tiny, or a .toml file; default: the RL remedy's, or rl-tiny.")
    ] = None,
    rewards: Annotated[str | None, typer.Option(help="URL of a reward service; default: computed here.")] = None,
    scorers: ScorersOption = None,
    watch: Annotated[list[str] | None, typer.Option(help="Further reward to measure on held-out prompts.")] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train by rewards, as a round's RL remedy says: guided roll-outs, the conditional branch alone in the objective.

    Without --prompts the prompts, reward weights and recipe are those that a round of the workspace wrote for its open
    RL cases.
    """
    from flywheel.core.progress import Progress
    from flywheel.remedies.prompts import hold_out, rl_remedy
    from flywheel.signals.suite import load_suite
    from training.recipe_file import load
    from training.rewards import Service
    from training.rl.recipe import RL_RECIPES
    from training.rl.trainer import train as train_rl

    start = _start(checkpoint, None if checkpoint else workspace)
    if prompts is None:
        if workspace is None:
            raise UsageError("give --prompts FILE, or --workspace W, whose RL remedy names them")
        remedy = rl_remedy(Workspace(workspace, create=False), round_)
        prompts, recipe = remedy / "prompts.jsonl", recipe or str(remedy / "recipe.toml")
        say(f"prompts and rewards of {remedy}")
    elif round_ is not None:
        raise UsageError("--round names the RL remedy whose prompts are taken: leave out --prompts")
    chosen = load(recipe or "rl-tiny", RL_RECIPES)
    given, watched = load_suite(prompts), load_suite(held_out) if held_out else None
    if watched is None:
        given, watched = hold_out(given, chosen.held_out)
    needed = dict.fromkeys([*chosen.rewards, *(chosen.proxy(n) for n in chosen.rewards), *(watch or ())])
    progress = Progress()
    with progress.step(f"reinforcement learning ({chosen.name})"):
        made = train_rl(
            output,
            given,
            watched,
            chosen,
            Service(rewards) if rewards else _local(tuple(needed), scorers),
            init=start,
            seed=seed,
            progress=lambda done, total, line: progress(done, total, _rewards_of(line)),
        )
    _finish(made.path, made.step, as_json)


@app.command(epilog="Example: flywheel distil -w w --prompts p.jsonl --output student")
def distil(
    prompts: PromptsOption,
    output: OutputOption,
    checkpoint: CheckpointOption = None,
    workspace: PromotedOption = None,
    recipe: Annotated[str, typer.Option(help="Recipe: dmd, dmd-tiny, or a .toml file.")] = "dmd-tiny",
    teacher: Annotated[
        list[Path] | None, typer.Option(help="Teacher's checkpoint folder; repeat for several. Default: the start.")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Distil a checkpoint to a few steps without guidance; `flywheel sample` then follows the student's own grid."""
    from dataclasses import replace

    from flywheel.core.progress import Progress
    from flywheel.signals.suite import load_suite
    from training.dmd.recipe import DMD_RECIPES
    from training.dmd.trainer import train as train_dmd
    from training.recipe_file import load

    chosen = load(recipe, DMD_RECIPES)
    if teacher:
        chosen = replace(chosen, teachers=tuple(map(str, teacher)))
    progress = Progress()
    with progress.step(f"distillation ({chosen.name})"):
        made = train_dmd(
            output,
            load_suite(prompts),
            chosen,
            init=_start(checkpoint, workspace),
            seed=seed,
            progress=lambda done, total, line: progress(done, total, f"fake loss {line['fake_loss']:.3f}"),
        )
    _finish(made.path, made.step, as_json)


def _start(checkpoint: Path | None, workspace: Path | None) -> Path:
    from flywheel.rounds.sample import promoted_checkpoint

    if (checkpoint is None) == (workspace is None):
        raise UsageError("give either --checkpoint DIR or --workspace W, whose promoted checkpoint is taken")
    return checkpoint or promoted_checkpoint(Workspace(workspace, create=False))


def _local(names: tuple[str, ...], scorers: Path | None) -> Any:
    from flywheel.core.config import read_toml
    from flywheel.remedies.rewards import Local

    return Local(names, read_toml(scorers) if scorers else {})


def _rewards_of(line: Mapping[str, Any]) -> str:
    return ", ".join(f"{n} {r['mean']:.3f}" for n, r in line["rewards"].items() if r["mean"] is not None)


def _finish(path: Path, step: int, as_json: bool) -> None:
    say(f"{step} steps; draw with `flywheel sample --checkpoint {path}`")
    out(json.dumps({"checkpoint": str(path), "step": step}) if as_json else str(path))
