"""Rounds one by one: plan, run, look, compare, decide, roll back; and why anything is as it is."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from flywheel.cli.console import out, print_rows, say
from flywheel.cli.options import ApproveOption, JsonOption, PrefectOption, WaitOption, WorkspaceOption
from flywheel.core.workspace import Workspace

app = typer.Typer()
round_ = typer.Typer(help="Plan, run, compare and decide on rounds.", no_args_is_help=True)
app.add_typer(round_, name="round")

NumberArgument = Annotated[int, typer.Argument(min=1, help="Number of the round.")]
ByOption = Annotated[str, typer.Option(help="Who decides: it stands in the ledger.")]
WhyOption = Annotated[str, typer.Option(help="The reason: it stands in the ledger.")]


@round_.command(epilog="Example: flywheel round plan --dry-run -w w")
def plan(
    workspace: WorkspaceOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show plan and cost, pin nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn the open cases into the next round's quotas, with reasons and cost, and pin everything it depends on."""
    from flywheel.rounds.outlook import plan_next

    found = plan_next(Workspace(workspace, create=False), pin=not dry_run)
    if as_json:
        out(json.dumps(found, ensure_ascii=False))
        return
    pinned, cost = found["plan"], found["cost"]
    state = "pinned" if found["pinned"] else "not pinned"
    out(f"round {pinned['round']} ({state}) from {pinned['incumbent'] or 'scratch'}")
    for name in ("snapshot", "policy", "checkpoint", "code", "preset", "suites", "seed", "steps", "waiting"):
        out(f"{name:>11}  {_text(pinned[name])}")
    print_rows(
        [{k: m.get(k) for k in ("slice", "round", "share", "samples", "cases", "reason")} for m in pinned["mix"]], False
    )
    hours = {k: cost[f"{k}_hours"] for k in ("cpu", "gpu", "wall")}
    said = ", ".join(f"{v:.2f} {k}-hours" for k, v in hours.items() if v is not None) or "hours unknown"
    out(
        f"cost: {cost['samples']} samples, {cost['optimiser_steps']} optimiser steps, {cost['images']} images, {said},"
        f" {cost['review_minutes']:.0f} minutes of review"
    )
    if cost["unmeasured"]:
        say(f"never measured here: {', '.join(cost['unmeasured'])}; hours are known after a round that has them")


@round_.command(epilog="Example: flywheel round run -w w")
def run(
    workspace: WorkspaceOption,
    auto_approve: ApproveOption = False,
    wait: WaitOption = True,
    prefect: PrefectOption = True,
    as_json: JsonOption = False,
) -> None:
    """Run the next round to its verdict, or go on with the one that was interrupted."""
    from dataclasses import replace

    from flywheel.cli.runs import run_job
    from flywheel.rounds.lease import last_job
    from flywheel.rounds.outlook import next_round

    opened = Workspace(workspace, create=False)
    job = last_job(opened)
    wanted = replace(job, rounds=next_round(opened), auto_approve=job.auto_approve or auto_approve)
    run_job(wanted, prefect=prefect, wait=wait, as_json=as_json)


@round_.command(epilog="Example: flywheel round status -w w")
def status(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Who runs, which checkpoint is in service, what waits, and every verdict with the decisions about it."""
    from flywheel.rounds.outlook import status as look

    found = look(Workspace(workspace, create=False))
    if as_json:
        out(json.dumps(found, ensure_ascii=False, default=str))
        return
    for name in ("running", "last_step", "incumbent", "promoted", "next_round", "planned", "cases"):
        out(f"{name:>11}  {_text(found[name])}")
    for name in ("review", "rounds"):
        if found[name]:
            print_rows([{k: v if isinstance(v, int) else _text(v) for k, v in r.items()} for r in found[name]], False)


@round_.command(epilog="Example: flywheel round diff 1 2 -w w")
def diff(a: NumberArgument, b: NumberArgument, workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """What differs between two rounds: pinned inputs, recipe, remedy data, failure rates, cases fixed and broken."""
    from flywheel.rounds.outlook import compare

    found = compare(Workspace(workspace, create=False), a, b)
    if as_json:
        out(json.dumps(found, ensure_ascii=False))
        return
    out(f"round {a}: {found['verdicts'][str(a)]}, round {b}: {found['verdicts'][str(b)]}")
    for name in ("pins", "data", "rates", "fixed", "broken"):
        out(f"\n{name}:")
        print_rows([{k: _text(v) for k, v in r.items()} for r in found[name]], False)


@round_.command(epilog='Example: flywheel round promote 3 --by ada --why "checked by eye" -w w')
def promote(
    number: NumberArgument, by: ByOption, why: WhyOption, workspace: WorkspaceOption, as_json: JsonOption = False
) -> None:
    """Put a round's candidate in service, whatever the gate said."""
    _decide(workspace, "promote", number, by, why, as_json)


@round_.command(epilog='Example: flywheel round reject 3 --by ada --why "faces look wrong" -w w')
def reject(
    number: NumberArgument, by: ByOption, why: WhyOption, workspace: WorkspaceOption, as_json: JsonOption = False
) -> None:
    """Rule a round's candidate out; where it was in service, the one before it is again."""
    _decide(workspace, "reject", number, by, why, as_json)


@round_.command(epilog='Example: flywheel round rollback --by ada --why "users complain" -w w')
def rollback(
    by: ByOption,
    why: WhyOption,
    workspace: WorkspaceOption,
    to: Annotated[int | None, typer.Option(min=1, help="Promoted round to return to; default: the one before.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Return to an earlier promoted checkpoint, at once: everything that asks for the incumbent gets it."""
    from flywheel.rounds.promotion import rollback_target

    number = to or rollback_target(Workspace(workspace, create=False))
    _decide(workspace, "rollback", number, by, why, as_json)


@app.command(epilog="Example: flywheel why 3f2a91 -w w")
def why(
    name: Annotated[str, typer.Argument(help="Id of a sample or a case (its start will do), or a checkpoint's path.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Where a sample, a case or a checkpoint comes from, and what became of it."""
    from flywheel.catalog.lineage import why as trace

    found = trace(Workspace(workspace, create=False), name)
    out(json.dumps(found, ensure_ascii=False, default=str, indent=None if as_json else 2))


def _decide(workspace: Any, kind: str, number: int, by: str, why: str, as_json: bool) -> None:
    from flywheel.rounds.promotion import decide

    found = decide(Workspace(workspace, create=False), kind, number, by=by, why=why)
    said = f"{kind} of round {number} recorded; in service: {found['incumbent'] or 'nothing'}"
    out(json.dumps(found, ensure_ascii=False) if as_json else said)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
