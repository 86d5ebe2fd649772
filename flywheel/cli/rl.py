"""Verbs of reinforcement learning and distillation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flywheel.cli.console import json_text, of_first_process, out, say
from flywheel.cli.options import JsonOption, SeedOption, WorkspaceOption, checkpoint_or_promoted
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

app = typer.Typer()
rl = typer.Typer(help="Reinforcement learning: prompts, reward service, training.", no_args_is_help=True)
app.add_typer(rl, name="rl")

CheckpointOption = Annotated[Path | None, typer.Option(help="Checkpoint folder to start from.")]
PromotedOption = Annotated[
    Path | None, typer.Option("--workspace", "-w", help="Workspace whose promoted checkpoint to start from.")
]
PromptsOption = Annotated[Path, typer.Option(help="Prompts to train on: a suite file (JSON Lines).")]
OutputOption = Annotated[Path, typer.Option(help="Folder for checkpoints and metrics.")]
HeldOutOption = Annotated[
    Path | None, typer.Option(help="Prompts to measure only: a suite file. Default: some of the prompts, kept apart.")
]
WatchOption = Annotated[
    list[str] | None, typer.Option(help="Additional reward to measure on held-out prompts. Repeatable.")
]
ExtendOption = Annotated[
    Path | None,
    typer.Option(help="Run to go on from, into another folder: the recipe has more steps or another learning rate."),
]
ScorersOption = Annotated[
    Path | None,
    typer.Option(help="TOML file with a table of options per scorer, such as model and pretrained of clip."),
]


@rl.command("prompts", epilog="Example: flywheel rl prompts -w w --output prompts.jsonl --count 64")
def prompts(
    workspace: WorkspaceOption,
    output: Annotated[Path, typer.Option(help="Suite file to write.")],
    capability: Annotated[
        list[str] | None,
        typer.Option(help="Capability to write prompts for. Repeatable. Default: those of the open RL cases."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of prompts per capability.")] = 64,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Write training prompts with checks for the capabilities of open RL cases.

    A prompt with the meaning of a held-out prompt is left out.
    """
    from flywheel.cases.events import load_cases
    from flywheel.remedies.prompts import rl_capabilities, write_prompts
    from flywheel.signals.hidden import held_out

    opened = Workspace(workspace, create=False)
    named = capability or rl_capabilities(list(load_cases(opened).values()))
    written = write_prompts(output, named, count, seed=seed, exclude=frozenset(p.text for p in held_out(opened)))
    out(json_text(written) if as_json else "\n".join(f"{name}: {n} prompts" for name, n in written.items()))


@rl.command("serve", hidden=True)  # the former name of `flywheel serve rewards`
def serve(
    reward: Annotated[list[str], typer.Option(help="Reward to serve. Repeatable.")],
    scorers: ScorersOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8400,
) -> None:
    """Serve rewards over HTTP for `flywheel rl train --rewards URL`.

    Any address but loopback needs a token in FLYWHEEL_REWARDS_TOKEN, here and where training runs.
    """
    import os

    from flywheel.core import serving
    from flywheel.remedies.reinforce import local_rewards
    from flywheel.remedies.reward_service import listening
    from training.rewards import TOKEN_VARIABLE

    app = listening(local_rewards(reward, _options(scorers)), host, os.environ.get(TOKEN_VARIABLE, ""))
    listener = serving.listen(host, port)
    say(f"rewards at http://{host}:{listener.getsockname()[1]}")
    serving.serve(app, listener)


@rl.command("rewards", epilog="Example: flywheel rl rewards --scorers scorers.toml")
def rewards(scorers: ScorersOption = None, as_json: JsonOption = False) -> None:
    """List the rewards: whether each can be computed here, or what to install or pull, and which verifiers watch it."""
    from flywheel.remedies.rewards import REWARDS, unavailable
    from training.rl.recipe import WATCHERS

    missing = unavailable(_options(scorers))
    rows = [
        {"reward": name, "state": missing.get(name, "available"), "watchers": list(WATCHERS.get(name, ()))}
        for name in REWARDS
    ]
    lines = [f"{r['reward']}: {r['state']}; watched by {' or '.join(r['watchers']) or 'nothing'}" for r in rows]
    out(json_text(rows) if as_json else "\n".join(lines))


@rl.command("train", epilog="Example: flywheel rl train -w w --output rl")
def train(
    output: OutputOption,
    workspace: PromotedOption = None,
    checkpoint: CheckpointOption = None,
    round_: Annotated[
        int | None,
        typer.Option("--round", min=1, help="Round whose RL remedy to follow. Default: the latest that has one."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts to train on: a suite file. Default: the RL remedy's.")
    ] = None,
    held_out: HeldOutOption = None,
    recipe: Annotated[
        str | None, typer.Option(help="rl, rl-tiny, or a .toml file. Default: the RL remedy's, or rl-tiny.")
    ] = None,
    rewards: Annotated[
        str | None, typer.Option(help="URL of a reward service. Default: compute the rewards here.")
    ] = None,
    scorers: ScorersOption = None,
    watch: WatchOption = None,
    extend: ExtendOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a checkpoint by rewards. The same command resumes.

    Roll-outs are guided; the objective uses the conditional branch alone. Without --prompts, the prompts, reward
    weights and recipe are those that a round of the workspace wrote for its open RL cases.

    Several processes share the prompts of a step: torchrun --nproc-per-node 8 -m flywheel.cli rl train …
    """
    from flywheel.core.progress import Progress
    from flywheel.remedies.reinforce import reinforce, reward_line
    from training.recipe_file import load
    from training.rewards import Service
    from training.rl.recipe import RL_RECIPES

    start = checkpoint_or_promoted(checkpoint, None if checkpoint else workspace)
    if prompts is None:
        remedy = _remedy(workspace, round_)
        prompts, recipe = remedy / "prompts.jsonl", recipe or str(remedy / "recipe.toml")
    elif round_ is not None:
        raise UsageError("--round selects the RL remedy to take the prompts from: leave out --prompts")
    chosen, progress = load(recipe or "rl-tiny", RL_RECIPES), Progress()
    with progress.step(f"reinforcement learning ({chosen.name})"):
        final = reinforce(
            output,
            prompts,
            chosen,
            init=start,
            seed=seed,
            held_out=held_out,
            watch=watch or (),
            rewards=Service(rewards) if rewards else None,
            scorers=_options(scorers),
            extend=extend,
            progress=lambda done, total, line: progress(done, total, reward_line(line)),
        )
    _finish(final.path, final.step, as_json)


def _remedy(workspace: Path | None, round_: int | None) -> Path:
    from flywheel.remedies.prompts import rl_remedy

    if workspace is None:
        raise UsageError("give --prompts FILE, or --workspace W, to use the prompts of its RL remedy")
    remedy = rl_remedy(Workspace(workspace, create=False), round_)
    say(f"using the prompts and rewards of {remedy}")
    return remedy


@app.command(epilog="Example: flywheel distil -w w --prompts p.jsonl --output student")
def distil(
    prompts: PromptsOption,
    output: OutputOption,
    checkpoint: CheckpointOption = None,
    workspace: PromotedOption = None,
    recipe: Annotated[str, typer.Option(help="dmd, dmd-tiny, or a .toml file.")] = "dmd-tiny",
    teacher: Annotated[
        list[Path] | None, typer.Option(help="Checkpoint folder of a teacher. Repeatable. Default: the start.")
    ] = None,
    extend: ExtendOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Distil a checkpoint to a few steps without guidance. The same command resumes.

    `flywheel sample` draws with the student at its own steps.

    Several processes share each update: torchrun --nproc-per-node 8 -m flywheel.cli distil …
    """
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
        final = train_dmd(
            output,
            load_suite(prompts),
            chosen,
            init=checkpoint_or_promoted(checkpoint, workspace),
            seed=seed,
            extend=extend,
            progress=lambda done, total, line: progress(done, total, f"fake loss {line['fake_loss']:.3f}"),
        )
    _finish(final.path, final.step, as_json)


def _options(scorers: Path | None) -> Mapping[str, Any]:
    from flywheel.core.config import read_toml
    from flywheel.core.ranges import unusable

    options = read_toml(scorers) if scorers else {}
    for _, fault in unusable(options):
        raise UsageError(f"{scorers}: {fault}")
    return options


def _finish(path: Path, step: int, as_json: bool) -> None:
    if of_first_process():
        say(f"{step} steps; to draw: flywheel sample PROMPT --checkpoint {path}")
        out(json_text({"checkpoint": str(path), "step": step}) if as_json else str(path))
