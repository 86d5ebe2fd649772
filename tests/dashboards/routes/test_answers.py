"""People answer cases on their pages and in the list."""

import json
import shutil
from pathlib import Path

import pytest

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import Page, opened, send, signed_in, some_case

WAITS = "track = 'human' AND status NOT IN ('closed', 'dismissed')"


@pytest.fixture(scope="module")
def written(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the workspace to write to."""
    return Workspace(shutil.copytree(workspace.root, tmp_path_factory.mktemp("answers") / "w"))


def test_an_answer_is_recorded_under_the_name_of_the_token_and_shown(written: Workspace) -> None:
    ada, case = signed_in(written, "ada"), some_case(written, WAITS)
    page = f"/cases/{case['case_id']}"
    text = Page(ada.get(page).text).text
    assert "This case waits for a person: routed by the fixture" in text
    answer = send(ada, page, f"{page}/answer", answer="rl", why="some seeds do it", reviewer="bob")
    assert answer.status_code == 200 and "ada sent it to rl: some seeds do it" in Page(answer.text).text
    rows = [r for r in Ledger(written, "case_events").rows() if r["case_id"] == case["case_id"]]
    assert json.loads(rows[-1]["evidence"]) == {"by": "ada", "reason": "some seeds do it"}
    assert (rows[-1]["kind"], rows[-1]["track"]) == ("routed", "rl")


def test_the_list_of_waiting_cases_answers_and_returns_to_itself(written: Workspace) -> None:
    ada, case = signed_in(written, "ada"), some_case(written, WAITS)
    shown = "/cases?track=human&status=open"
    before = Page(ada.get(shown).text)
    forms = [a["action"] for t, a in before.elements if t == "form" and str(a["action"]).endswith("/answer")]
    assert f"/cases/{case['case_id']}/answer" in forms
    events = [r for r in Ledger(written, "case_events").rows() if r["case_id"] == case["case_id"]]
    fields = {"seen": events[-1]["event_id"], "back": "track=human&status=open&page=1", "why": "the check is <wrong>"}
    after = send(ada, shown, f"/cases/{case['case_id']}/answer", answer="dismiss", **fields)
    assert str(after.url).endswith(f"track=human&status=open&page=1&answered={case['case_id']}&reviewer=ada")
    assert "Recorded: ada dismissed" in Page(after.text).text and "the check is &lt;wrong&gt;" in after.text
    assert ada.get(f"/api/cases?status=open&track=human&answered={case['case_id']}").json()["paging"]["total"] == (
        len(forms) - 1
    )
    assert f"{len(forms) - 1} cases wait for a person" in Page(ada.get("/review").text).text


def test_what_may_not_answer_is_told_why(written: Workspace, tmp_path: Path) -> None:
    case = some_case(written, WAITS)
    page, to = f"/cases/{case['case_id']}", f"/cases/{case['case_id']}/answer"
    eve, ada, bob = (signed_in(written, name) for name in ("eve", "ada", "bob"))
    assert to not in eve.get(page).text and send(eve, page, to, answer="rl", why="x").status_code == 403
    assert ada.post(to, data={"answer": "rl", "why": "x"}).status_code == 403, "no token of the form"
    assert "unknown track" in send(ada, page, to, answer="unsure", why="x").text
    assert "say who answers" in send(ada, page, to, answer="rl", why=" ").text
    seen = next(a["value"] for t, a in Page(bob.get(page).text).elements if a.get("name") == "seen")
    assert send(ada, page, to, answer="pretraining", why="none does it").status_code == 200
    late = send(bob, page, to, answer="rl", why="late", seen=seen)
    assert late.status_code == 422 and "changed after this page was made" in late.text
    nobody = opened(written)
    assert "say who answers" in send(nobody, page, to, answer="rl", why="x", reviewer="").text
    assert send(nobody, page, "/cases/nothing/answer", answer="rl", why="x", reviewer="a").status_code == 422


def test_a_closed_case_asks_nobody(written: Workspace) -> None:
    closed = some_case(written, "status = 'closed'")
    page = signed_in(written, "ada").get(f"/cases/{closed['case_id']}").text
    assert 'name="answer"' not in page
