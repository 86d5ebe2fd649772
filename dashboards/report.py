"""The one-file HTML report: opens without a server, loads nothing from the network, stays under 5 MB."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from dashboards import cases
from dashboards.images import InlineImages
from dashboards.page import STYLE, Link, environment
from dashboards.views import LIMITATIONS, data, overview, round_view
from flywheel.catalog.database import connect, export_round
from flywheel.catalog.queries import ready
from flywheel.core.files import write_bytes
from flywheel.core.workspace import Workspace

IMAGE_BYTES = 3_600_000  # all images together, as base64; text and drawings need far less than the rest of 5 MB
CARDS = 12  # fixed cases, and broken cases, shown per round
FAILURES = 24
DETAILED_ROUNDS = 6  # the latest ones; older ones are only rows of the table


def render(workspace: Workspace, title: str = "Flywheel report") -> str:
    """The report as HTML. Equal workspaces give equal text."""
    con = connect(workspace)
    try:
        page = overview(workspace, con)
        rounds = page.rounds
        views = [round_view(workspace, con, r, cards=CARDS) for r in rounds[-DETAILED_ROUNDS:]]
        failures = cases.failures(con, rounds[-1], limit=FAILURES) if rounds else []
        values = vars(page) | vars(data(workspace, con))
    finally:
        con.close()
    env = environment(
        image=InlineImages(workspace, IMAGE_BYTES),
        link=_anchor({v.round.number for v in views}),
        absent="left out to keep this file small, or not in the workspace",
    )
    return env.get_template("report.html").render(
        values,
        title=title,
        style=Markup(STYLE.read_text("utf-8")),
        views=views,
        failures=failures,
        references=cases.references(workspace),
        questions=ready().values(),
        limitations=LIMITATIONS,
    )


def write(workspace: Workspace) -> Path:
    """Write the report into the workspace; returns its path."""
    write_bytes(workspace.report, render(workspace).encode())
    return workspace.report


# What a run publishes as its last steps, by label.
PUBLISH = {"export": export_round, "report": write}


def _anchor(detailed: set[int]) -> Link:
    def link(kind: str, value: object) -> str:
        if kind == "round":
            return f"#round-{value}" if value in detailed else "#earlier"
        return "#cases"

    return link
