"""The strip of the run that works now, and its stop."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from benchmarks.accessibility import violations
from benchmarks.browser import served
from dashboards.access import Access, Person
from flywheel.core.ledger import Ledger
from flywheel.core.progress import Progress
from flywheel.core.workspace import Workspace
from flywheel.rounds.job import Job
from flywheel.rounds.lease import hold
from flywheel.rounds.live import Report
from tests.dashboards.visits import Page, opened, send, signed_in

OPERATOR = Access({"operator-has-this-token": Person("oda", "operate")})


@pytest.fixture
def running(workspace: Workspace, tmp_path: Path) -> Iterator[tuple[Workspace, Report]]:
    """A copy of the workspace on whose third round this process works, and what it says of it."""
    copy = Workspace(shutil.copytree(workspace.root, tmp_path / "w"))
    progress = Progress(io.StringIO())
    with hold(copy, Job(str(copy.root), "/none")) as number, progress.step("round 3: train candidate"):
        report = Report(copy, number, progress)
        report.round = 3
        progress.say("a line with <b>")
        progress(250, 1000, "loss 0.5")
        report.write()
        yield copy, report


def test_a_running_round_is_seen_and_an_operator_stops_it(running: tuple[Workspace, Report]) -> None:
    workspace, _ = running
    eve = signed_in(workspace, "eve")
    for path in ("/", "/rounds/3", "/live"):
        page = Page(html := eve.get(path).text)
        assert "Round 3 is running train candidate: 250 of 1,000 loss 0.5" in page.text, path
        assert "a line with &lt;b>" in html or "a line with &lt;b&gt;" in html
        assert [a["hx-get"] for t, a in page.elements if a.get("id") == "live"] == ["/live"]
        assert "/live/stop" not in html and "the role operate" in html
    assert "is running" not in eve.get("/rounds/2").text
    assert send(eve, "/", "/live/stop", why="x").status_code == 403
    oda = opened(workspace, OPERATOR)
    oda.post("/login", data={"token": "operator-has-this-token"})
    assert "say who asks, and why" in send(oda, "/", "/live/stop", why=" ").text
    answer = send(oda, "/", "/live/stop", why="the disk is needed")
    assert "oda asked it to stop" in Page(answer.text).text
    assert json.loads(Ledger(workspace, "runs").rows()[-1]["job"]) == {"by": "oda", "why": "the disk is needed"}
    assert oda.get("/api/live").json()["live"]["asked_by"] == "oda"


def test_where_nothing_runs_nothing_is_asked_again(workspace: Workspace) -> None:
    visitor = opened(workspace)
    assert 'id="live"' not in visitor.get("/").text
    page = Page(visitor.get("/live").text)
    assert "No run works" in page.text and not [a for _, a in page.elements if "hx-trigger" in a]
    assert visitor.get("/rounds/9").status_code == 404 and visitor.get("/rounds/x").status_code == 404


def test_a_strip_renews_itself_until_the_run_has_ended(browser: Any, running: tuple[Workspace, Report]) -> None:
    workspace, report = running
    with served(workspace) as address:
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        report.progress(300, 1000, "loss 0.4")
        report.write()
        assert list(violations(page, Axe())) == []
        page.get_by_text("300 of 1,000").wait_for(timeout=10_000)
        workspace.path("runs", "progress.json").unlink()
        page.get_by_text("No run works on this workspace now").wait_for(timeout=10_000)
        assert page.locator("[hx-trigger*=every]").count() == 0
        assert {u.removeprefix(address) for u in asked if "/live" in u} == {"/live"}
        page.close()
