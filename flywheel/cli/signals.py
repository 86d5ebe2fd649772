"""Verbs of signals: prompt suites, bad cases, user feedback, arena battles; and routing them into cases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flywheel.cli.console import json_text, out, print_rows, say
from flywheel.cli.options import JsonOption, PresetOption, SeedOption, WorkspaceOption
from flywheel.core.errors import UsageError
from flywheel.core.files import given_file
from flywheel.core.workspace import Workspace

app = typer.Typer()
suite = typer.Typer(help="Import, show and score prompt suites.", no_args_is_help=True)
signals = typer.Typer(
    help="Collect failure signals (mining, user feedback) and route them into cases.", no_args_is_help=True
)
arena = typer.Typer(help="Import pairwise battles between models, and rate the models.", no_args_is_help=True)
app.add_typer(suite, name="suite")
app.add_typer(signals, name="signals")
app.add_typer(arena, name="arena")

TOKEN_VARIABLE = "FLYWHEEL_FEEDBACK_TOKEN"


def _print(counts: Mapping[str, Any], as_json: bool) -> None:
    text = ", ".join(f"{k} {v}" for k, v in counts.items()) or "none"
    out(json_text(counts) if as_json else text)


@suite.command("import", epilog="Example: flywheel suite import geneval evaluation_metadata.jsonl --output suite.jsonl")
def import_suite(
    kind: Annotated[str, typer.Argument(help="Benchmark: geneval, partiprompts, longtext, cvtg, dpg or edit.")],
    file: Annotated[Path, typer.Argument(help="Prompt file in the benchmark's own format.")],
    output: Annotated[Path, typer.Option(help="Suite file to write. It must not exist yet.")],
    as_json: JsonOption = False,
) -> None:
    """Convert the prompts of a public benchmark into a suite whose prompts name their verifiers."""
    from flywheel.signals.importers import import_suite as import_file

    _print({"prompts": import_file(kind, file, output), "suite": str(output)}, as_json)


@suite.command(epilog="Example: flywheel suite show -w w")
def show(
    file: Annotated[Path | None, typer.Argument(help="Suite file. Default: the workspace's held-out suite.")] = None,
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-w", help="Show the held-out suite of this workspace.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count the prompts of a suite by group, and show how well its checks tell true pictures from null pictures."""
    from flywheel.signals.shown import groups

    if file is None and workspace is None:
        raise UsageError("give a suite file, or with --workspace the workspace whose suite to show")
    rows = groups(file or _held_out_suite(Path(workspace or "")))
    if as_json:
        print_rows(rows, True)
        return
    print_rows([{k: v for k, v in r.items() if k != "checks"} for r in rows], False)
    checks = [
        c | {"nulls": ", ".join(f"{n} {x:.0%}" for n, x in c["nulls"].items())} for r in rows for c in r["checks"]
    ]
    if checks:
        print_rows(list({c["check"]: c for c in checks}.values()), False)
    else:
        say("no check of this suite was calibrated: only a suite that is made from a pool has true pictures")


def _held_out_suite(workspace: Path) -> Path:
    """The suite file of a workspace. Errors: `UsageError`."""
    opened = Workspace(workspace, create=False)
    if not opened.suite.exists():
        raise UsageError(f"{opened.root} has no held-out suite yet: the first round makes one")
    return opened.suite


@suite.command("judge", hidden=True)
def judge_suite(
    file: Annotated[Path, typer.Argument(help="Suite file, also that of a workspace: w/suite/suite.jsonl.")],
    pictures: Annotated[Path, typer.Option(help="Folder of pictures named <prompt_id>.png or .jpg.")],
    preset: PresetOption = "tiny",
    as_json: JsonOption = False,
) -> None:
    """Former name of `flywheel evaluate pictures` without a workspace."""
    from flywheel.cli.models import judge_only

    judge_only(pictures, file, preset, as_json)


@suite.command(epilog="Example: flywheel suite score suite.jsonl outputs.jsonl -w w --checkpoint ours-v2")
def score(
    file: Annotated[Path, typer.Argument(help="Suite file.")],
    outputs: Annotated[
        Path, typer.Argument(help="JSON Lines file: prompt_id and text, detections, answers or ratings.")
    ],
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-w", help="Also record the verdicts as signals in this workspace.")
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="Name of the model behind the outputs; required with --workspace.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Score recorded outputs of any model by the benchmark's own rule.

    For pictures, see `flywheel evaluate pictures`."""
    from flywheel.signals.benchmarks import judge_outputs, record, result
    from flywheel.signals.feedback import read_rows
    from flywheel.signals.suite import load_suite

    outputs = given_file(outputs, "a JSON Lines file, the output of one image per line")
    if workspace and not checkpoint:
        raise UsageError("--workspace needs --checkpoint: signals name the model behind the outputs")
    prompts = load_suite(file)
    rows = []
    for number, line in enumerate(read_rows(outputs), 1):
        try:
            rows.append(json.loads(line) if isinstance(line, str) else line)
        except ValueError as error:
            raise UsageError(f"{outputs}, line {number}: not JSON ({error})") from error
    judged = judge_outputs(prompts, rows)
    scores = result(prompts, judged)
    if scores.not_judged or scores.prompts_without_output:
        say(f"{scores.not_judged} outputs have no verdict, {scores.prompts_without_output} prompts have no output")
    if workspace:
        record(Workspace(workspace), judged, checkpoint)
    if as_json:
        out(json_text(vars(scores)))
    else:
        groups = [{"group": k or "all", "score": f"{v:.4f}"} for k, v in scores.groups.items()]
        total = "no verdict" if scores.score is None else f"{scores.score:.4f}"
        print_rows(
            [*groups, {"group": f"{scores.benchmark or 'suite'}, {scores.images} images", "score": total}], False
        )


@signals.command(epilog="Example: flywheel signals mine judgements.parquet -w w")
def mine(
    file: Annotated[
        Path, typer.Argument(help="Judgements of the model's own samples during training: Parquet or JSON Lines.")
    ],
    workspace: WorkspaceOption,
    margin: Annotated[
        float, typer.Option(min=0, help="Passes within this margin of their threshold, relative to it, are bad cases.")
    ] = 0.05,
    disagreement: Annotated[
        float, typer.Option(min=0, max=1, help="Disagreement of judges from which a prompt is a bad case.")
    ] = 0.5,
    as_json: JsonOption = False,
) -> None:
    """Mine bad cases: failed samples, seeds and judges that disagree, narrow passes. Records them as signals."""
    from flywheel.signals.mining import Mining, mine_file

    _print(mine_file(Workspace(workspace), file, Mining(margin=margin, disagreement=disagreement)), as_json)


@signals.command(
    epilog="Example: flywheel signals judge w/checkpoints/round-0002-candidate/step-00000400 -w w --seeds 4"
)
def judge(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="Checkpoint folder, also of a running training; or folder or hub tag of a pipeline."),
    ],
    workspace: WorkspaceOption,
    suite: Annotated[
        Path | None, typer.Option(help="Suite to draw. Default: the workspace's, without its hidden prompts.")
    ] = None,
    preset: PresetOption = "tiny",
    seeds: Annotated[int, typer.Option(min=1, help="Images per prompt.")] = 4,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw a suite with any generator, judge the images, and mine bad cases from the judgements."""
    from flywheel.core.progress import Progress
    from flywheel.generators import describe, open_generator
    from flywheel.presets import load_preset
    from flywheel.signals.hidden import split
    from flywheel.signals.mining import Mining, mine_file
    from flywheel.signals.pinned import load_any
    from flywheel.signals.self_evaluation import self_evaluate

    opened = Workspace(workspace, create=False)
    drawn = load_any(given_file(suite, "a suite file with --suite")) if suite else split(opened)[0]
    if not drawn:
        raise UsageError(f"{opened.root} has no held-out suite yet: give a suite file with --suite")
    progress, numbers = Progress(), range(seed, seed + seeds)
    with progress.step("judge"):
        generator, settings = open_generator(describe(checkpoint)), load_preset(preset).evaluation
        judged = self_evaluate(opened, generator, str(checkpoint), drawn, numbers, settings, progress=progress)
    say(f"judgements: {judged}")
    _print(mine_file(opened, judged, Mining()), as_json)


@signals.command("import", epilog="Example: flywheel signals import feedback.jsonl -w w")
def import_feedback(
    file: Annotated[Path, typer.Argument(help="User feedback, one event per row: JSON Lines or Parquet.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Import user feedback. Each event_id counts once; invalid rows are quarantined with a reason."""
    from flywheel.signals.feedback import import_file

    _print(vars(import_file(Workspace(workspace), file)), as_json)


@signals.command(hidden=True)  # the former name of `flywheel serve feedback`
def serve(
    workspace: WorkspaceOption,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8060,
) -> None:
    """Receive user feedback at POST /feedback. Clients send the token in FLYWHEEL_FEEDBACK_TOKEN as bearer token."""
    import os

    from flywheel.signals.feedback_server import serve as serve_feedback

    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise UsageError(f"set the environment variable {TOKEN_VARIABLE} to the token that clients send")
    say(f"receiving feedback at http://{host}:{port}/feedback")
    serve_feedback(Workspace(workspace), token, host=host, port=port)


@signals.command(epilog="Example: flywheel signals fold -w w")
def fold(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Record feedback that a stopped server left in its log."""
    from flywheel.signals.feedback_log import fold as fold_log

    _print({"recorded": fold_log(Workspace(workspace, create=False))}, as_json)


@signals.command(epilog="Example: flywheel signals collect -w w")
def collect(
    workspace: WorkspaceOption,
    model: Annotated[str | None, typer.Option(help="Our model: each battle it lost becomes a signal.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Import all new files in the workspace's inbox. Exit code 1 if one cannot be read.

    Put JSON Lines or Parquet files into `inbox/feedback`, `inbox/judgements` or `inbox/battles`. Equal files count
    once.
    """
    from flywheel.signals.inbox import collect as collect_inbox

    rows = collect_inbox(Workspace(workspace, create=False), model=model)
    print_rows(rows, as_json)
    if any(r["error"] for r in rows):
        raise typer.Exit(1)


@signals.command(epilog="Example: flywheel signals route -w w --preset demo")
def route(workspace: WorkspaceOption, preset: PresetOption = "tiny", as_json: JsonOption = False) -> None:
    """Turn stored signals into cases, and route the cases that have stored experiments. Calls no model."""
    from flywheel.cases.stored import gather, route_stored
    from flywheel.presets import load_preset

    opened, settings = Workspace(workspace, create=False), load_preset(preset).attribution
    _print({"events": gather(opened), "tracks": route_stored(opened, settings)}, as_json)


@arena.command("import", epilog="Example: flywheel arena import battles.jsonl -w w --model ours-v2")
def import_battles(
    file: Annotated[Path, typer.Argument(help="Battles: JSON Lines or Parquet.")],
    workspace: WorkspaceOption,
    model: Annotated[str | None, typer.Option(help="Our model: each battle it lost becomes a signal.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Import pairwise votes. Each battle_id counts once."""
    from flywheel.signals.arena import import_battles as import_file

    _print(vars(import_file(Workspace(workspace), file, model=model)), as_json)


@arena.command(epilog="Example: flywheel arena ratings -w w --capability typography")
def ratings(
    workspace: WorkspaceOption,
    capability: Annotated[
        str | None, typer.Option(help="Only this capability. Default: each one, and overall.")
    ] = None,
    style: Annotated[bool, typer.Option("--style", help="Control for the style covariates of the battles.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Number of bootstrap resamples.")] = 200,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Compute Bradley–Terry ratings with 95 % bootstrap intervals."""
    from flywheel.core.ledger import Ledger
    from flywheel.signals.arena import battles
    from flywheel.signals.ratings import rate

    recorded = Ledger(Workspace(workspace, create=False), "battles").rows()
    groups = battles(recorded, styles=style)
    if not groups or (capability and capability not in groups):
        raise UsageError(
            "no such battles: import some with `flywheel arena import`, with style_a and style_b for --style"
        )
    if left_out := len(recorded) - len(groups["overall"].outcomes):
        say(f"{left_out} of {len(recorded)} battles are left out: they have no covariates, or others than most have")
    rows = []
    for name in [capability] if capability else groups:
        try:
            rated, coefficients = rate(groups[name], rounds=rounds, seed=seed)
        except UsageError as error:
            say(f"{name}: {error}")
            continue
        rows += [{"capability": name, **vars(r)} for r in rated]
        if coefficients and not as_json:
            say(f"{name}, style: " + ", ".join(f"{k} {v:+.3f}" for k, v in coefficients.items()))
    if not as_json:
        scale = ("rating", "low", "high")
        rows = [r | {k: None if r[k] is None else f"{r[k]:.1f}" for k in scale} for r in rows]
    print_rows(rows, as_json)
