"""Cases on the pages: filters, cards, one case's history."""

import json
import re
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dashboards.app import PAGE
from dashboards.report import render
from dashboards.routes.browse import CARDS
from flywheel.catalog.database import query
from flywheel.catalog.lineage import why
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import Page, opened, some_case
from tests.dashboards.workspace import PROBED, hold


@pytest.mark.parametrize(
    ("asked", "condition"),
    [
        ("capability=typography", "capability = 'typography'"),
        ("track=human", "track = 'human'"),
        ("status=closed", "status = 'closed'"),
        ("status=re-opened&track=pretraining", "status = 're-opened' AND track = 'pretraining'"),
        ("round=2", "round = 2"),
        (
            "checkpoint=checkpoints/round-0002-candidate&capability=count",
            "capability = 'count' AND prompt_id IN (SELECT prompt_id FROM signals WHERE NOT passed"
            " AND checkpoint = 'checkpoints/round-0002-candidate')",
        ),
        ("capability=' OR true --", "false"),
    ],
)
def test_filters_choose_their_cases(client: TestClient, workspace: Workspace, asked: str, condition: str) -> None:
    wanted = {r["case_id"] for r in query(workspace, f"SELECT case_id FROM cases WHERE {condition}")}
    page = Page(client.get(f"/cases?{asked}").text)
    links = [a["href"] for t, a in page.elements if t == "a"]
    shown = {h.removeprefix("/cases/") for h in links if h.startswith("/cases/")}
    assert len(wanted) <= PAGE
    assert shown == wanted
    assert f"{len(wanted)} case" in page.text


def test_case_page_shows_its_life_and_every_test(client: TestClient, workspace: Workspace) -> None:
    case = some_case(workspace, "status = 'closed' AND capability = 'typography'")
    text = Page(client.get(f"/cases/{case['case_id']}").text).text
    for word in ("detected", "routed", "passed", "round 1, candidate", "round 2, candidate", "round 2, control"):
        assert word in text


def test_case_page_shows_probes_with_pictures_reviews_and_remedy(client: TestClient, workspace: Workspace) -> None:
    case = some_case(workspace, "prompt_id = 'typography-001'")
    page = Page(client.get(f"/cases/{case['case_id']}").text)
    assert "1 of 2 further seeds pass" in page.text
    shown = [a["src"] for t, a in page.elements if t == "img" and "/probes/" in a["src"]]
    assert shown == [f"/files/probes/round-0001/seed-{k}/typography-001.png?side=384" for k in (1, 2)]
    assert "claimed ada" in page.text and "rejected ada wrong word" in page.text
    assert re.search(r"round 2 retrieved 20 \d+ ", page.text)


def test_a_review_by_a_program_is_no_answer_of_a_person(client: TestClient) -> None:
    page = Page(client.get(f"/cases/{PROBED}").text)
    assert "reviewed" in page.text and "accepted 120" in page.text and "auto-approve sent it" not in page.text
    assert client.get(f"/cases?answered={PROBED}").status_code == 200


def test_a_card_shows_the_text_that_is_wrong_and_the_cases_history(client: TestClient) -> None:
    html = client.get("/cases?capability=typography&status=re-opened").text
    assert '<bdi>OP<mark class="lost">EN</mark></bdi>' in html
    history = re.findall(r'<ol class="history".*?</ol>', html, re.S)
    assert history and all(re.search(r"detected.*r1.*routed.*r1.*failed.*r2", h, re.S) for h in history)


def test_a_case_that_a_user_found_shows_what_the_user_said(empty: Workspace) -> None:
    told = {
        "verifier": "user",
        "score": 0.0,
        "threshold": 0.5,
        "evidence": json.dumps({"expected": "CAT", "seen": "CAR"}),
    }
    event = {"event_id": "e", "case_id": "c" * 16, "round": 0, "kind": "detected", "capability": "typography"}
    event |= {"prompt_id": "user-1", "prompt": "a sign", "evidence": json.dumps({"signals": [told]})}
    Ledger(empty, "case_events").append([event], key="e")
    assert '<bdi>CA<mark class="lost">T</mark></bdi>' in opened(empty).get("/cases").text


def test_a_picture_that_an_imported_verdict_names_and_nobody_has_is_told_as_such(empty: Workspace) -> None:
    told = {"verifier": "user", "score": 0.0, "threshold": 0.5, "image": "elsewhere/1.png", "evidence": "{}"}
    event = {"event_id": "e", "case_id": "c" * 16, "round": 0, "kind": "detected", "capability": "color"}
    event |= {"prompt_id": "p", "prompt": "a sign", "evidence": json.dumps({"signals": [told]})}
    Ledger(empty, "case_events").append([event], key="e")
    html = opened(empty).get("/cases").text
    assert "elsewhere/1.png" not in html and "not in the workspace" in html


def test_names_are_no_writing_whose_characters_differ(empty: Workspace) -> None:
    told = {"verifier": "color", "score": 0.0, "threshold": 0.5, "evidence": '{"expected": "purple", "seen": "blue"}'}
    event = {"event_id": "e", "case_id": "c" * 16, "round": 0, "kind": "detected", "capability": "color"}
    event |= {"prompt_id": "p", "prompt": "a purple sign", "evidence": json.dumps({"signals": [told]})}
    Ledger(empty, "case_events").append([event], key="e")
    html = opened(empty).get("/cases").text
    assert "<bdi>purple</bdi>" in html and "<bdi>blue</bdi>" in html and "<mark" not in html


def test_a_checkpoints_own_output_is_shown_when_it_is_asked_for(client: TestClient) -> None:
    html = client.get("/cases?checkpoint=checkpoints/round-0002-candidate").text
    assert "/files/samples/round-0002-candidate/" in html and "/files/samples/round-0001-candidate/" not in html


def test_what_a_held_round_broke_comes_first_and_every_id_opens(workspace: Workspace, tmp_path: Path) -> None:
    copy = Workspace(shutil.copytree(workspace.root, tmp_path / "w"))
    result = hold(copy)
    known = {r["case_id"] for r in query(copy, "SELECT case_id FROM cases")}
    broken = result["broken"]
    assert result["verdict"] != "PROMOTE" and broken and not set(broken) <= known
    client = opened(copy)
    for page in (Page(client.get("/rounds/3").text), Page(render(copy))):
        assert 0 < page.text.index(f"Broken: {len(broken)} cases") < page.text.index("Fixed: ")
    page = Page(client.get("/rounds/3").text)
    cards = {a["id"].removeprefix("case-") for t, a in page.elements if t == "article" and "id" in a}
    assert len(cards & set(broken)) == min(len(broken), CARDS)
    assert [t for t, a in page.elements if t == "img" and a.get("alt") == "candidate’s output"]
    unknown = next(c for c in broken if c not in known)
    case = Page(client.get(f"/cases/{unknown}").text)
    assert "round 3, candidate" in case.text and "no checkpoint that fails it was promoted" in case.text
    assert [t["passed"] for t in why(copy, unknown)["tests"]] == [True, True, False]
    assert client.get("/cases/0123456789abcdef").status_code == 404
