"""Runs rounds for the command as a Prefect flow run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict

from flows.server import api, configure
from flows.steps import TERMINAL, Publish, Terminal
from flywheel.core.mirror import mirror
from flywheel.core.progress import Progress
from flywheel.core.workspace import Workspace
from flywheel.remedies.review import Waiting
from flywheel.rounds.job import Job
from flywheel.rounds.run import Summary


def run_with_prefect(job: Job, progress: Progress | None = None, publish: Publish | None = None) -> Summary:
    """Run a job as a flow run; takes, returns and raises the same as `flywheel.rounds.run.run`.

    The server is the one at PREFECT_API_URL, or an embedded one with its files in `<workspace>/.prefect`.
    """
    progress = progress or Progress()
    home = mirror(Workspace(job.workspace).path(".prefect"))
    configure(home)
    with ExitStack() as stack:
        with progress.step("start Prefect"):
            stack.enter_context(api(home))
            from flows.scheduled import round_
        token = TERMINAL.set(Terminal(progress, publish or {}))
        stack.callback(TERMINAL.reset, token)
        summary = round_(**asdict(job))
    if isinstance(summary, Waiting):
        raise summary
    return summary
