"""What a flow run leaves for people in Prefect's UI: counts, funnel, gate, progress, and links into the dashboard."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flywheel.core.progress import Progress

_SECONDS = 10.0  # between two updates of a progress artifact
_GATE = ("check", "targeted", "outcome", "incumbent", "candidate", "low", "high", "fixed", "broken")


class Shown(Progress):
    """Progress that a flow run shows too: an artifact per step."""

    _artifact: Any = None
    _told = 0.0

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
        if total and time.monotonic() - self._told > _SECONDS:
            from prefect.artifacts import update_progress_artifact

            self._told = time.monotonic()
            update_progress_artifact(self._artifact, progress=100.0 * done / total)


def publish(summary: Mapping[str, Any]) -> None:
    """A run's counts and verdicts as Markdown; failure rates and the last gate as tables; a link to the last round."""
    markdown_artifact(markdown(summary), "flywheel-round", "Counts, verdicts, report")
    table_artifact(rate_table(summary), "flywheel-failure-rates", "Failure rate by round and capability")
    if summary["rounds"]:
        last = summary["rounds"][-1]
        lines = [{k: line[k] for k in _GATE} for line in last["gate"]]
        table_artifact(lines, "flywheel-gate", f"Gate of round {last['round']}: {last['verdict']}")
        link(f"rounds/{last['round']}", f"Round {last['round']}")


def markdown_artifact(text: str, key: str, description: str = "") -> None:
    """Markdown under a key."""
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(text, key=key, description=description)


def table_artifact(rows: Iterable[Mapping[str, Any]], key: str, description: str) -> None:
    """A table under a key; none where there are no rows."""
    from prefect.artifacts import create_table_artifact

    if table := [dict(r) for r in rows]:
        create_table_artifact(table, key=key, description=description)


def link(path: str, text: str) -> None:
    """A link to a page of the dashboard that FLYWHEEL_DASHBOARD_URL names; none where it names none."""
    from prefect.artifacts import create_link_artifact

    if url := os.environ.get("FLYWHEEL_DASHBOARD_URL"):
        create_link_artifact(f"{url.rstrip('/')}/{path}", link_text=text, key="flywheel-dashboard", description=text)


def markdown(summary: Mapping[str, Any]) -> str:
    """Counts and verdicts, one line each."""
    rounds = [
        f"- round {r['round']}: **{r['verdict']}**, {len(r['fixed'])} cases fixed, {len(r['broken'])} broken"
        for r in summary["rounds"]
    ]
    return "\n".join([counts(summary), "", *rounds, "", f"Report: `{summary['report']}`"])


def counts(found: Mapping[str, Any]) -> str:
    """input = admitted + dropped + quarantined, with the numbers."""
    input_, *rest = (f"{found[k]:,} {k}" for k in ("input", "admitted", "dropped", "quarantined"))
    return f"{input_} = {' + '.join(rest)}"


def rate_table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
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
