"""The data of whole pages: the report and the dashboard show the same views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboards import cases, funnel, training, trends
from dashboards.rounds import Round, counts, load_rounds
from dashboards.rows import Row, rows
from flywheel.core.workspace import Workspace
from flywheel.rounds.stages import Unread, unread

if TYPE_CHECKING:
    import duckdb

LIMITATIONS = (
    "Verdicts come from automatic checks, and a check can be wrong: text is read by OCR, shapes are detected by colour,"
    " likeness is a correlation. Look at the images before acting on a number.",
    "The interval of a failure rate covers the choice of prompts, but not the random seed of sampling or training: each"
    " arm was trained once, and each prompt was sampled once.",
    "Several capabilities are tested at once without correction: one line of the gate in twenty can look significant by"
    " chance.",
    "Fixed and broken cases are counted on the same held-out prompts in every round. A suite used over many rounds is"
    " eventually overfitted, even if never trained on: replace it periodically.",
    "A case describes one prompt of the suite, not how often users meet the failure.",
)


@dataclass(frozen=True)
class RoundView:
    """One round with the cases it changed, its remedy samples, training curves and sample grids."""

    round: Round
    fixed: list[Row]
    broken: list[Row]
    remedies: list[Row]
    curves: list[training.Curve]
    grids: list[tuple[str, str]]


def round_view(workspace: Workspace, con: duckdb.DuckDBPyConnection, round_: Round, *, cards: int) -> RoundView:
    """A round with up to `cards` fixed and `cards` broken cases."""
    return RoundView(
        round=round_,
        fixed=cases.changed(con, round_, round_.fixed, limit=cards),
        broken=cases.changed(con, round_, round_.broken, limit=cards),
        remedies=[g for g in funnel.generated(con) if g["round"] == round_.number],
        curves=training.load_curves(workspace, round_.number),
        grids=training.grids(workspace, round_.number),
    )


@dataclass(frozen=True)
class Overview:
    """The first screen: rounds, counts of the latest snapshot, and the numbers of the loop.

    trends: failure rates by capability and round, and the same as the data of a chart; tracks: cases by remedy track;
    steps: optimiser steps of all plans; prompts: held-out prompts of the last round; remedies: admitted samples.
    """

    workspace: str
    root: str
    rounds: list[Round]
    trends: dict[str, trends.Trend]
    trend_chart: str
    counts: Row | None
    tracks: list[Row]
    steps: int
    prompts: int
    remedies: int


@dataclass(frozen=True)
class Data:
    """The latest snapshot: its funnel, filters that are off, what is admitted and read by no stage, and all reasons."""

    counts: Row | None
    funnel: list[funnel.StagePass]
    off: list[str]
    unread: list[Unread]
    drops: list[Row]
    quarantine: list[Row]


def overview(workspace: Workspace, con: duckdb.DuckDBPyConnection) -> Overview:
    """The first screen as the files are now."""
    rounds = load_rounds(workspace, con)
    by_capability = trends.trends(rounds)
    return Overview(
        workspace=workspace.root.name,
        root=str(workspace.root),
        rounds=rounds,
        trends=by_capability,
        trend_chart=trends.chart(by_capability),
        counts=counts(con),
        tracks=cases.by_track(con),
        steps=sum(r.plan.steps for r in rounds if r.plan),
        prompts=_held_out_prompts(con),
        remedies=rows(con, "SELECT count(*) AS n FROM generated WHERE outcome = 'admitted'")[0]["n"],
    )


def _held_out_prompts(con: duckdb.DuckDBPyConnection) -> int:
    """Number of prompts that the last round was evaluated on."""
    last = "round = (SELECT max(round) FROM rounds) AND kind = 'evaluation'"
    return rows(con, f"SELECT count(DISTINCT prompt_id) AS n FROM signals WHERE {last}")[0]["n"]


def data(workspace: Workspace, con: duckdb.DuckDBPyConnection) -> Data:
    """The data of the latest snapshot."""
    passes = funnel.load_funnel(con)
    return Data(
        counts=counts(con),
        funnel=passes,
        off=funnel.not_configured(passes),
        unread=unread(workspace),
        drops=funnel.drop_reasons(con),
        quarantine=funnel.quarantine_reasons(con),
    )
