"""A round as a Prefect flow: the same plain functions as without Prefect, each a task run that the server records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.server import api, configure
from flywheel.mirror import mirror
from flywheel.progress import Progress
from flywheel.rounds.job import Job
from flywheel.rounds.run import run
from flywheel.workspace import UsageError, Workspace

if TYPE_CHECKING:
    from prefect import Flow


Report = Callable[[Workspace], object]


def run_with_prefect(job: Job, progress: Progress | None = None, report: Report | None = None) -> dict[str, Any]:
    """`flywheel.rounds.run.run` as a flow run; takes and returns the same, raises the same errors.

    The server is an embedded one over `<workspace>/.prefect`, or the one that the environment's PREFECT_API_URL names.
    """
    progress = progress or Progress()
    home = mirror(Workspace(job.workspace).path(".prefect"))
    configure(home)
    with ExitStack() as stack:
        with progress.step("start Prefect"):
            stack.enter_context(api(home))
            flow = round_flow(progress, report)
        return flow(**asdict(job))


def round_flow(progress: Progress | None = None, report: Report | None = None) -> Flow[..., dict[str, Any]]:
    """The flow `flywheel-round`; its parameters are the fields of `Job`."""
    from prefect import flow

    @flow(name="flywheel-round", retries=0, persist_result=False)
    def flywheel_round(
        workspace: str,
        source: str,
        captions: str | None = None,
        policy: str | None = None,
        preset: str = "tiny",
        seed: int = 0,
        rounds: int = 2,
        workers: int = 2,
        auto_approve: bool = False,
    ) -> dict[str, Any]:
        """Ingest, curate, train, evaluate, route, repair and gate: see `flywheel.rounds.run`."""
        job = Job(workspace, source, captions, policy, preset, seed, rounds, workers, auto_approve)
        summary = run(job, step=task_step, progress=progress, report=report)
        publish(summary)
        return summary

    return flywheel_round


def task_step(
    name: str, function: Callable[..., Any], *args: Any, retry_delays: Sequence[float] = (), **kwargs: Any
) -> Any:
    """Run one step as a task run of that name.

    The task takes and returns nothing: Prefect walks through parameters and results, which may be whole data sets. No
    cache: a step finds its own finished work. `retry_delays`: seconds before each further try; an error that the user
    can fix is not tried again.
    """
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    results: list[Any] = []

    def step() -> None:
        results.append(function(*args, **kwargs))

    def may_pass(task: Any, run: Any, state: Any) -> bool:
        return not isinstance(state.result(raise_on_failure=False), UsageError)

    task(
        step,
        name=function.__name__,
        task_run_name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(retry_delays),
        retry_delay_seconds=list(retry_delays),
        retry_condition_fn=may_pass,
    )()
    return results[0]


def publish(summary: dict[str, Any]) -> None:
    """Artifacts of the flow run: the counts and verdicts as Markdown, failure rates as a table."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    create_markdown_artifact(markdown(summary), key="flywheel-round", description="Counts, verdicts, report")
    if table := rate_table(summary):
        create_table_artifact(table, key="flywheel-failure-rates", description="Failure rate by round and capability")


def markdown(summary: dict[str, Any]) -> str:
    """Counts and verdicts, one line each."""
    input_, *rest = (f"{summary[k]:,} {k}" for k in ("input", "admitted", "dropped", "quarantined"))
    rounds = [
        f"- round {r['round']}: **{r['verdict']}**, {len(r['fixed'])} cases fixed, {len(r['broken'])} broken"
        for r in summary["rounds"]
    ]
    return "\n".join([f"{input_} = {' + '.join(rest)}", "", *rounds, "", f"Report: `{summary['report']}`"])


def rate_table(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per round and capability; the control's rate is null where there was no control run."""
    return [
        {
            "round": r["round"],
            "capability": capability,
            "failure_rate": rate,
            "control_failure_rate": r["control_failure_rate"].get(capability),
        }
        for r in summary["rounds"]
        for capability, rate in r["failure_rate"].items()
    ]
