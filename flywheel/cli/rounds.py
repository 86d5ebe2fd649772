"""Verbs of single rounds: plan, run, compare, decide, roll back; and `why`, the lineage of anything."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from flywheel.cli.analysts import rounds
from flywheel.cli.console import json_text, out, print_rows, say
from flywheel.cli.options import ApproveOption, JsonOption, PrefectOption, WaitOption, WorkspaceOption
from flywheel.core.workspace import Workspace

app = typer.Typer()
round_ = typer.Typer(help="Plan, run and compare rounds; promote, reject, roll back.", no_args_is_help=True)
app.add_typer(round_, name="round")

NumberArgument = Annotated[int, typer.Argument(min=1, help="Round number.")]
ByOption = Annotated[str, typer.Option(help="Name of the decision maker; recorded in the ledger.")]
WhyOption = Annotated[str, typer.Option(help="Reason; recorded in the ledger.")]


round_.command("list", epilog="Example: flywheel round list -w w")(rounds)


@round_.command(epilog="Example: flywheel round plan --dry-run -w w")
def plan(
    workspace: WorkspaceOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and its cost without pinning it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Plan the next round: what each track gets, for which open cases, why, its cost, and what the suite can show.

    Pins all that the plan depends on.
    """
    from flywheel.rounds.outlook import plan_next

    outlook = plan_next(Workspace(workspace, create=False), pin=not dry_run)
    if as_json:
        out(json_text(outlook))
        return
    planned, cost = outlook["plan"], outlook["cost"]
    state = "pinned" if outlook["pinned"] else "not pinned"
    out(f"round {planned['round']} ({state}) from {planned['incumbent'] or 'scratch'}")
    for name in ("snapshot", "policy", "checkpoint", "code", "preset", "suites", "seed", "steps", "waiting"):
        out(f"{name:>11}  {_text(planned[name])}")
    print_rows(
        [{k: m.get(k) for k in ("slice", "round", "share", "samples", "cases", "reason")} for m in planned["mix"]],
        False,
    )
    print_rows([_planned_step(s) for s in outlook["steps"]], False)
    print_rows([s | {"buckets": _text(s["buckets"])} for s in outlook["stages"]], False)
    for line in outlook["stages_left_out"]:
        say(line)
    out(
        f"cost: {cost['samples']} samples, {cost['optimiser_steps']} optimiser steps, {cost['images']} images, "
        f"{_spent(cost)},"
        f" {cost['review_minutes']:.0f} minutes of review"
    )
    if cost["unmeasured"]:
        say(f"hours not measured yet: {', '.join(cost['unmeasured'])}; the first round that has them measures them")
    _print_detectable(outlook["detectable"])


def _print_detectable(shown: dict[str, Any]) -> None:
    """Print what the suite can show: the smallest change per target, and the capabilities that it guards too weakly."""
    if shown["targets"]:
        out("smallest fall of a failure rate that is promoted in 80 % of rounds, if nothing else changes:")
    for x in shown["targets"]:
        change = (
            f"{100 * x['change']:.0f} points" if x["change"] is not None else f"none (all repaired: {x['power']:.0%})"
        )
        size = f"{x['prompts']} prompts, {x['pictures']} pictures each"
        out(f"  {x['capability']}: {change}; {x['failure_rate']:.0%} fail now ({size})")
    for x in (g for g in shown["guards"] if g["power"] < 0.8):
        needed = f"about {x['needed']} prompts would" if x["needed"] else "no number of prompts would"
        out(
            f"  {x['capability']}: its {x['prompts']} prompts rule out a loss of {100 * x['margin']:.0f} points in"
            f" {x['power']:.0%} of rounds without one; {needed} in 80 %"
        )


def _planned_step(step: dict[str, Any]) -> dict[str, Any]:
    amounts = [f"{step[k]} {k}" for k in ("samples", "prompts", "updates") if step.get(k)]
    shown = {"track": step["track"] or "all", "kind": step["kind"], "amount": ", ".join(amounts) or "–"}
    hours = step["cost"]["cpu_hours"]
    cost = "unknown" if hours is None else f"{hours:.2f}" if hours else "–"
    return shown | {"cases": step["cases"], "cpu_hours": cost, "reason": step["reason"]}


def _spent(cost: dict[str, Any]) -> str:
    hours = {k: cost[f"{k}_hours"] for k in ("cpu", "gpu", "wall")}
    return ", ".join(f"{v:.2f} {k}-hours" for k, v in hours.items() if v is not None) or "hours unknown"


@round_.command(epilog="Example: flywheel round run -w w")
def run(
    workspace: WorkspaceOption,
    auto_approve: ApproveOption = False,
    wait: WaitOption = True,
    prefect: PrefectOption = True,
    as_json: JsonOption = False,
) -> None:
    """Run the next round to its verdict, or resume an interrupted one, with the settings of the last run."""
    _run_next(Workspace(workspace, create=False), auto_approve, prefect=prefect, wait=wait, as_json=as_json)


@round_.command(epilog='Example: flywheel round submit rl/final --by ada --why "RL on hands" -w w')
def submit(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder, from any training.")],
    by: Annotated[str, typer.Option(help="Who submits it; recorded in the plan.")],
    why: WhyOption,
    workspace: WorkspaceOption,
    prefect: PrefectOption = True,
    as_json: JsonOption = False,
) -> None:
    """Make a checkpoint the candidate of the next round: evaluated and gated like one that a round trained."""
    from flywheel.rounds.submit import submit as make_candidate

    opened = Workspace(workspace, create=False)
    plan = make_candidate(opened, checkpoint, by=by, why=why)
    say(f"{checkpoint} is the candidate of round {plan.round}")
    _run_next(opened, False, prefect=prefect, wait=True, as_json=as_json)


def _run_next(workspace: Workspace, auto_approve: bool, *, prefect: bool, wait: bool, as_json: bool) -> None:
    from dataclasses import replace

    from flywheel.cli.runs import run_job
    from flywheel.rounds.lease import last_job
    from flywheel.rounds.outlook import next_round

    job = last_job(workspace)
    wanted = replace(job, rounds=next_round(workspace), auto_approve=job.auto_approve or auto_approve)
    run_job(wanted, prefect=prefect, wait=wait, as_json=as_json)


@round_.command(epilog="Example: flywheel round status -w w")
def status(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Show what runs, which checkpoint is in service, what waits, and all verdicts and decisions."""
    from flywheel.rounds.outlook import status as look

    state = look(Workspace(workspace, create=False))
    if as_json:
        out(json_text(state))
        return
    if state["system"]:  # its checkpoint has a line of its own
        state["system"] = {k: v for k, v in state["system"].items() if k not in ("checkpoint", "weights")}
    for name in ("running", "last_step", "incumbent", "system", "promoted", "next_round", "planned", "cases"):
        out(f"{name.replace('_', ' '):>11}  {_text(state[name])}")
    for name, columns in (("review", ()), ("rounds", ("round", "verdict", "at", "decisions", "checkpoint"))):
        if state[name]:
            rows = [{k: v if isinstance(v, int) else _text(v) for k, v in r.items()} for r in state[name]]
            print_rows(rows, False, shown=columns)


@round_.command(epilog="Example: flywheel round diff 1 2 -w w")
def diff(a: NumberArgument, b: NumberArgument, workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Compare two rounds: pinned inputs, recipe, remedy data, failure rates, cases fixed and broken."""
    from flywheel.rounds.outlook import compare

    comparison = compare(Workspace(workspace, create=False), a, b)
    if as_json:
        out(json_text(comparison))
        return
    out(f"round {a}: {comparison['verdicts'][str(a)]}, round {b}: {comparison['verdicts'][str(b)]}")
    for name in ("pins", "data", "rates", "fixed", "broken"):
        out(f"\n{name}:")
        print_rows([{k: _text(v) for k, v in r.items()} for r in comparison[name]], False)


@round_.command(epilog='Example: flywheel round promote 3 --by ada --why "checked by eye" -w w')
def promote(
    number: NumberArgument, by: ByOption, why: WhyOption, workspace: WorkspaceOption, as_json: JsonOption = False
) -> None:
    """Put a round's candidate in service, whatever the gate decided."""
    _decide(workspace, "promote", number, by, why, as_json)


@round_.command(epilog='Example: flywheel round reject 3 --by ada --why "faces look wrong" -w w')
def reject(
    number: NumberArgument, by: ByOption, why: WhyOption, workspace: WorkspaceOption, as_json: JsonOption = False
) -> None:
    """Reject a round's candidate. If it is in service, the one before it returns."""
    _decide(workspace, "reject", number, by, why, as_json)


@round_.command(epilog='Example: flywheel round rollback --by ada --why "users complain" -w w')
def rollback(
    by: ByOption,
    why: WhyOption,
    workspace: WorkspaceOption,
    to: Annotated[
        int | None, typer.Option(min=1, help="Promoted round to return to. Default: the previous one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put an earlier promoted checkpoint back in service. Everything that uses the incumbent gets it at once."""
    from flywheel.rounds.promotion import rollback_target

    number = to or rollback_target(Workspace(workspace, create=False))
    _decide(workspace, "rollback", number, by, why, as_json)


@app.command(epilog="Example: flywheel why 3f2a91 -w w")
def why(
    name: Annotated[
        str, typer.Argument(help="Id of a sample or case or its first characters, or the path of a checkpoint.")
    ],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Show where a sample, a case or a checkpoint comes from and what it was used for."""
    from flywheel.catalog.lineage import why as trace

    lineage = trace(Workspace(workspace, create=False), name)
    out(json_text(lineage, indent=None if as_json else 2))


def _decide(workspace: Path, kind: str, number: int, by: str, why: str, as_json: bool) -> None:
    from flywheel.rounds.promotion import decide

    decision = decide(Workspace(workspace, create=False), kind, number, by=by, why=why)
    message = f"{kind} of round {number} recorded; in service: {decision['incumbent'] or 'nothing'}"
    out(json_text(decision) if as_json else message)


def _text(value: Any) -> str:
    """A value as people read it: times to the minute, names and values side by side, a dash for what is not there."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(v)}" for name, v in value.items() if v is not None) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "–"
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else str(value)
