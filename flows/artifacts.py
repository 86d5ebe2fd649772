"""Artifacts of a flow run in Prefect's UI: counts, funnel, gate, progress, and links to the dashboard."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from curation.run import StageReport
from flywheel.core.progress import Progress

_SECONDS = 10.0  # between two updates of a progress artifact
_GATE = ("check", "targeted", "outcome", "incumbent", "candidate", "low", "high", "fixed", "broken")


class Shown(Progress):
    """Progress that also appears in Prefect's UI, as one artifact per step."""

    _artifact: Any = None
    _updated = 0.0

    @contextmanager
    def step(self, label: str) -> Iterator[None]:
        """As `Progress.step`."""
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        self._artifact = create_progress_artifact(0.0, key="flywheel-progress", description=label)
        with super().step(label):
            yield
        update_progress_artifact(self._artifact, progress=100.0)

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        super().__call__(done, total, note)
        if total and time.monotonic() - self._updated > _SECONDS:
            from prefect.artifacts import update_progress_artifact

            self._updated = time.monotonic()
            update_progress_artifact(self._artifact, progress=100.0 * done / total)


def publish(summary: Mapping[str, Any]) -> None:
    """Publish a run's counts and verdicts, its failure rates, the last gate, and a link to the last round."""
    markdown_artifact(markdown(summary), "flywheel-round", "Counts, verdicts, report")
    table_artifact(rate_table(summary), "flywheel-failure-rates", "Failure rate by round and capability")
    if summary["rounds"]:
        last = summary["rounds"][-1]
        lines = [{k: line[k] for k in _GATE} for line in last["gate"]]
        table_artifact(lines, "flywheel-gate", f"Gate of round {last['round']}: {last['verdict']}")
        link(f"rounds/{last['round']}", f"Round {last['round']}")


def show(result: object) -> None:
    """Publish the result of a step as an artifact of its task run, if it has a table: so far, stages of curation."""
    if isinstance(result, StageReport):
        name = result.stage.lower()
        table_artifact(result.funnel, f"flywheel-{name}", result.line)
        markdown_artifact(stage_markdown(result), f"flywheel-{name}-counts", f"Counts of stage {result.stage}")


def stage_markdown(report: StageReport) -> str:
    """A stage's counts, as Markdown."""
    trained = [f"- bucket {bucket}: {rows:,} rows" for bucket, rows in report.rows.items()]
    files = f"{report.files} shard files begin with this stage, {report.written} of them written now"
    return "\n".join([f"{report.entered:,} entered, {report.dropped:,} stopped", "", *trained, "", files])


def markdown_artifact(text: str, key: str, description: str = "") -> None:
    """Create a Markdown artifact."""
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(text, key=key, description=description)


def table_artifact(rows: Iterable[Mapping[str, Any]], key: str, description: str) -> None:
    """Create a table artifact, unless there are no rows."""
    from prefect.artifacts import create_table_artifact

    if table := [dict(r) for r in rows]:
        create_table_artifact(table, key=key, description=description)


def link(path: str, text: str) -> None:
    """Create a link to a page of the dashboard at FLYWHEEL_DASHBOARD_URL, if that is set."""
    from prefect.artifacts import create_link_artifact

    if url := os.environ.get("FLYWHEEL_DASHBOARD_URL"):
        create_link_artifact(f"{url.rstrip('/')}/{path}", link_text=text, key="flywheel-dashboard", description=text)


def markdown(summary: Mapping[str, Any]) -> str:
    """A run's counts, its verdicts (one line each) and the path of its report, as Markdown."""
    rounds = [
        f"- round {r['round']}: **{r['verdict']}**, {len(r['fixed'])} cases fixed, {len(r['broken'])} broken"
        for r in summary["rounds"]
    ]
    return "\n".join([counts(summary), "", *rounds, "", f"Report: `{summary['report']}`"])


def counts(summary: Mapping[str, Any]) -> str:
    """The equation input = admitted + dropped + quarantined with its numbers."""
    input_, *rest = (f"{summary[k]:,} {k}" for k in ("input", "admitted", "dropped", "quarantined"))
    return f"{input_} = {' + '.join(rest)}"


def rate_table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per round and capability; the control's rate is null in rounds without a control run."""
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
