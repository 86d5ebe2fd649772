"""A round as a Prefect flow: the same plain functions as without Prefect, each a task run that the server records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.server import api, configure
from flywheel.core.errors import UsageError
from flywheel.core.mirror import mirror
from flywheel.core.progress import Progress
from flywheel.core.workspace import Workspace
from flywheel.remedies.review import Waiting
from flywheel.rounds.job import Job
from flywheel.rounds.run import Summary, run

if TYPE_CHECKING:
    from prefect import Flow


Publish = Mapping[str, Callable[[Workspace], object]]


def run_with_prefect(job: Job, progress: Progress | None = None, publish: Publish | None = None) -> Summary:
    """`flywheel.rounds.run.run` as a flow run; takes and returns the same, raises the same errors.

    The server is an embedded one over `<workspace>/.prefect`, or the one that the environment's PREFECT_API_URL names.
    """
    progress = progress or Progress()
    home = mirror(Workspace(job.workspace).path(".prefect"))
    configure(home)
    with ExitStack() as stack:
        with progress.step("start Prefect"):
            stack.enter_context(api(home))
            flow = round_flow(progress, publish)
        found = flow(**asdict(job))
    if isinstance(found, Waiting):
        raise found
    return found


def round_flow(progress: Progress | None = None, publish: Publish | None = None) -> Flow[..., Summary | Waiting]:
    """The flow `flywheel-round`; its parameters are the fields of `Job`. It ends, well, where people are waited for."""
    from prefect import flow
    from prefect.states import Completed

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
    ) -> Any:
        """Ingest, curate, train, evaluate, route, repair and gate: see `flywheel.rounds.run`."""
        job = Job(workspace, source, captions, policy, preset, seed, rounds, workers, auto_approve)
        try:
            summary = run(job, step=task_step, progress=progress, publish=publish)
        except Waiting as people:
            return Completed(name="WaitsForReview", message=str(people), data=people)
        publish(summary.as_dict())
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
