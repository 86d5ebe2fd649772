"""Signals: prompt suites, bad cases, user feedback, arena battles; and from signals to routed cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flywheel.cli.console import out, print_rows, say
from flywheel.cli.options import JsonOption, PresetOption, SeedOption, WorkspaceOption
from flywheel.core.errors import UsageError
from flywheel.core.files import given_file
from flywheel.core.workspace import Workspace

app = typer.Typer()
suite = typer.Typer(help="Prompt suites: import, show, score.", no_args_is_help=True)
signals = typer.Typer(help="What tells of failures: mining, user feedback; route them to cases.", no_args_is_help=True)
arena = typer.Typer(help="Pairwise battles between models.", no_args_is_help=True)
app.add_typer(suite, name="suite")
app.add_typer(signals, name="signals")
app.add_typer(arena, name="arena")

TOKEN_VARIABLE = "FLYWHEEL_FEEDBACK_TOKEN"


def _print(found: dict[str, Any], as_json: bool) -> None:
    out(json.dumps(found, ensure_ascii=False) if as_json else ", ".join(f"{k} {v}" for k, v in found.items()) or "none")


@suite.command("import", epilog="Example: flywheel suite import geneval evaluation_metadata.jsonl --output suite.jsonl")
def import_suite(
    kind: Annotated[str, typer.Argument(help="geneval, partiprompts, longtext, cvtg, dpg or edit.")],
    file: Annotated[Path, typer.Argument(help="The benchmark's own prompt file.")],
    output: Annotated[Path, typer.Option(help="Suite to write; must not exist.")],
    as_json: JsonOption = False,
) -> None:
    """Turn a public benchmark's prompts into a suite; each prompt carries its verifiers."""
    from flywheel.signals.importers import import_suite as import_file

    _print({"prompts": import_file(kind, file, output), "suite": str(output)}, as_json)


@suite.command(epilog="Example: flywheel suite show suite.jsonl")
def show(file: Annotated[Path, typer.Argument(help="Suite.")], as_json: JsonOption = False) -> None:
    """Prompts of a suite by group, with their verifiers and capabilities."""
    from collections import Counter

    from flywheel.signals.suite import load_suite

    groups = Counter(
        (
            p.benchmark,
            p.category,
            p.task,
            " ".join(sorted({c["verifier"] for c in p.checks})),
            " ".join(sorted({c["capability"] for c in p.checks})),
        )
        for p in load_suite(file)
    )
    names = ("benchmark", "group", "task", "verifiers", "capabilities")
    print_rows([dict(zip(names, k)) | {"prompts": n} for k, n in sorted(groups.items())], as_json)


@suite.command(epilog="Example: flywheel suite score suite.jsonl outputs.jsonl -w w --checkpoint ours-v2")
def score(
    file: Annotated[Path, typer.Argument(help="Suite.")],
    outputs: Annotated[Path, typer.Argument(help="JSON lines: prompt_id and text, detections, answers or ratings.")],
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-w", help="Record the verdicts as signals of this workspace.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="Name of the model that made the outputs.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Score recorded outputs by the benchmark's own rule."""
    from flywheel.signals.benchmarks import judge_outputs, record, result
    from flywheel.signals.feedback import read_rows
    from flywheel.signals.suite import load_suite

    outputs = given_file(outputs, "JSON lines, one picture's output a line")
    if workspace and not checkpoint:
        raise UsageError("--workspace needs --checkpoint: signals name the model that made the outputs")
    prompts = load_suite(file)
    rows = []
    for number, line in enumerate(read_rows(outputs), 1):
        try:
            rows.append(json.loads(line) if isinstance(line, str) else line)
        except ValueError as error:
            raise UsageError(f"{outputs}, line {number}: not JSON ({error})") from error
    judged = judge_outputs(prompts, rows)
    found = result(prompts, judged)
    if found.not_judged or found.prompts_without_output:
        say(f"{found.not_judged} outputs had no verdict, {found.prompts_without_output} prompts have no output")
    if workspace:
        record(Workspace(workspace), judged, checkpoint)
    if as_json:
        out(json.dumps(vars(found), ensure_ascii=False))
    else:
        shown = [{"group": k or "all", "score": f"{v:.4f}"} for k, v in found.groups.items()]
        total = "no verdict" if found.score is None else f"{found.score:.4f}"
        print_rows([*shown, {"group": f"{found.benchmark or 'suite'}, {found.images} pictures", "score": total}], False)


@signals.command(epilog="Example: flywheel signals mine judgements.parquet -w w")
def mine(
    file: Annotated[Path, typer.Argument(help="Judgements that training made of its own samples, Parquet or JSONL.")],
    workspace: WorkspaceOption,
    margin: Annotated[
        float, typer.Option(min=0, help="A pass by less, relative to its threshold, is a bad case.")
    ] = 0.05,
    disagreement: Annotated[float, typer.Option(min=0, max=1, help="Dissent of judges that makes a bad case.")] = 0.5,
    as_json: JsonOption = False,
) -> None:
    """Find bad cases: failures of the model's own samples, seeds and judges that disagree, narrow passes."""
    from flywheel.signals.mining import Mining, mine_file

    _print(mine_file(Workspace(workspace), file, Mining(margin=margin, disagreement=disagreement)), as_json)


@signals.command(
    epilog="Example: flywheel signals judge w/checkpoints/round-0002-candidate/step-00000400 -w w --seeds 4"
)
def judge(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder, of a training that still runs too.")],
    workspace: WorkspaceOption,
    suite: Annotated[Path | None, typer.Option(help="Suite to draw; default: the workspace's held-out suite.")] = None,
    preset: PresetOption = "tiny",
    seeds: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 4,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Let a checkpoint judge what it draws itself, and mine the bad cases from it."""
    from flywheel.core.progress import Progress
    from flywheel.presets import load_preset
    from flywheel.signals.mining import Mining, mine_file
    from flywheel.signals.self_evaluation import self_evaluate
    from flywheel.signals.suite import load_suite

    opened = Workspace(workspace, create=False)
    path = given_file(suite or opened.path("suite", "suite.jsonl"), "one with --suite")
    progress, numbers = Progress(), range(seed, seed + seeds)
    with progress.step("judge"):
        judged = self_evaluate(
            opened, checkpoint, load_suite(path), numbers, load_preset(preset).evaluation, progress=progress
        )
    say(f"judgements: {judged}")
    _print(mine_file(opened, judged, Mining()), as_json)


@signals.command("import", epilog="Example: flywheel signals import feedback.jsonl -w w")
def import_feedback(
    file: Annotated[Path, typer.Argument(help="User feedback, JSON lines or Parquet, one event a row.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Import user feedback; an event counts once by its event_id, a bad row is quarantined with its reason."""
    from flywheel.signals.feedback import import_file

    _print(vars(import_file(Workspace(workspace), file)), as_json)


@signals.command(epilog=f"Example: {TOKEN_VARIABLE}=… flywheel signals serve -w w --port 8060")
def serve(
    workspace: WorkspaceOption,
    host: Annotated[str, typer.Option(help="Address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8060,
) -> None:
    """Receive user feedback at POST /feedback; the bearer token is read from the environment."""
    import os

    from flywheel.signals.feedback_server import serve as serve_feedback

    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise UsageError(f"set the environment variable {TOKEN_VARIABLE} to the token that clients send")
    say(f"receiving feedback at http://{host}:{port}/feedback")
    serve_feedback(Workspace(workspace), token, host=host, port=port)


@signals.command(epilog="Example: flywheel signals fold -w w")
def fold(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Move feedback that a stopped server left in its log into the ledger."""
    from flywheel.signals.feedback_log import fold as fold_log

    _print({"recorded": fold_log(Workspace(workspace, create=False))}, as_json)


@signals.command(epilog="Example: flywheel signals collect -w w")
def collect(
    workspace: WorkspaceOption,
    model: Annotated[str | None, typer.Option(help="Our model in battles: what it lost becomes a signal.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Import every new file of the workspace's inbox. Exit code 1 when one could not be read.

    `inbox/feedback`, `inbox/judgements` and `inbox/battles` hold JSON lines or Parquet; each content counts once.
    """
    from flywheel.signals.inbox import collect as collect_inbox

    rows = collect_inbox(Workspace(workspace, create=False), model=model)
    print_rows(rows, as_json)
    if any(r["error"] for r in rows):
        raise typer.Exit(1)


@signals.command(epilog="Example: flywheel signals route -w w --preset demo")
def route(workspace: WorkspaceOption, preset: PresetOption = "tiny", as_json: JsonOption = False) -> None:
    """Turn stored signals into cases, and route the cases on which experiments are stored. Calls no model."""
    from flywheel.cases.stored import gather, route_stored
    from flywheel.presets import load_preset

    opened, settings = Workspace(workspace, create=False), load_preset(preset).attribution
    _print({"events": gather(opened), "tracks": route_stored(opened, settings)}, as_json)


@arena.command("import", epilog="Example: flywheel arena import battles.jsonl -w w --model ours-v2")
def import_battles(
    file: Annotated[Path, typer.Argument(help="Battles, JSON lines or Parquet.")],
    workspace: WorkspaceOption,
    model: Annotated[str | None, typer.Option(help="Our model: what it lost becomes a signal.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Import pairwise votes; a battle counts once by its battle_id."""
    from flywheel.signals.arena import import_battles as import_file

    _print(vars(import_file(Workspace(workspace), file, model=model)), as_json)


@arena.command(epilog="Example: flywheel arena ratings -w w --capability typography")
def ratings(
    workspace: WorkspaceOption,
    capability: Annotated[str | None, typer.Option(help="Only this capability; default: each, and overall.")] = None,
    style: Annotated[bool, typer.Option("--style", help="Control for the battles' style covariates.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Bootstrap resamples.")] = 200,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Bradley–Terry ratings with 95 % bootstrap intervals."""
    from flywheel.core.ledger import Ledger
    from flywheel.signals.arena import battles
    from flywheel.signals.ratings import rate

    groups = battles(Ledger(Workspace(workspace, create=False), "battles").rows(), styles=style)
    if not groups or (capability and capability not in groups):
        raise UsageError(
            "no such battles: import some with `flywheel arena import`, with style_a and style_b for --style"
        )
    rows = []
    for name in [capability] if capability else groups:
        try:
            found, coefficients = rate(groups[name], rounds=rounds, seed=seed)
        except UsageError as error:
            say(f"{name}: {error}")
            continue
        rows += [{"capability": name, **vars(r)} for r in found]
        if coefficients and not as_json:
            say(f"{name}, style: " + ", ".join(f"{k} {v:+.3f}" for k, v in coefficients.items()))
    if not as_json:
        rows = [r | {k: f"{r[k]:.1f}" for k in ("rating", "low", "high")} for r in rows]
    print_rows(rows, as_json)
