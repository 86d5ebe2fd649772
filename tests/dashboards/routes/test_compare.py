"""The compare page, its JSON, and a person's verdict on a picture."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import Page, opened, send, signed_in
from tests.dashboards.workspace import PROMPTS, RATES

CHANGED = "/compare?one=1-candidate&other=2-candidate"


def test_what_changed_is_shown_in_pairs_broken_first(client: TestClient) -> None:
    answer = client.get("/api/compare").json()
    assert (answer["one"], answer["other"]) == ("1-candidate", "2-candidate"), "the incumbent and the newest candidate"
    assert sum(answer["counts"].values()) == PROMPTS * len(RATES)
    changes = [p["change"] for p in answer["pairs"]]
    assert changes == sorted(changes, key=["broken", "fixed"].index) and {"broken", "fixed"} == set(changes)
    page = Page(client.get("/compare").text)
    assert page.open == []
    cards = [a["id"] for t, a in page.elements if t == "article"]
    assert len(cards) == len(answer["pairs"]) == answer["counts"]["broken"] + answer["counts"]["fixed"]
    assert f"{answer['counts']['broken']} broken , {answer['counts']['fixed']} fixed" in page.text
    pictures = [a["src"] for t, a in page.elements if t == "img"]
    assert len(pictures) == 2 * len(cards)
    assert all(client.get(src).status_code == 200 for src in pictures[:4])


def test_pages_and_filters_agree_with_the_json(workspace: Workspace) -> None:
    visitor = opened(workspace, page_size=7)
    path, seen = f"{CHANGED}&show=all&capability=count", 0
    while path:
        listed = visitor.get(f"/api{path}").json()["pairs"]
        assert {v["capability"] for p in listed for v in p["verdicts"]} == {"count"}
        page = Page(visitor.get(path).text)
        assert len([1 for t, a in page.elements if t == "article"]) == len(listed) <= 7
        seen += len(listed)
        path = next((a["href"] for t, a in page.elements if a.get("rel") == "next"), "")
    assert seen == PROMPTS


@pytest.mark.parametrize("path", ["?one=9-candidate", "?other=x", "?show=odd", "?page=-1"])
def test_what_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(f"/compare{path}").status_code == 404
    refused = client.get(f"/api/compare{path}")
    assert refused.status_code == 404 and refused.json()["error"]


def test_an_evaluation_is_not_compared_with_itself(client: TestClient, empty: Workspace) -> None:
    same = client.get("/compare?one=1-candidate&other=1-candidate")
    assert "Choose two different evaluations" in same.text and same.status_code == 200
    assert "needs two evaluations" in opened(empty).get("/compare").text
    assert opened(empty).get("/api/compare").json()["pairs"] == []


def test_a_person_judges_where_the_picture_is_seen(workspace: Workspace, tmp_path: Path) -> None:
    copy = Workspace(shutil.copytree(workspace.root, tmp_path / "w"))
    ada, eve = signed_in(copy, "ada"), signed_in(copy, "eve")
    pair = ada.get(f"/api{CHANGED}").json()["pairs"][0]
    after = pair["verdicts"][0]["after"]
    form = {"check": f"{after['signal_id']} {after['image']}", "choice": "pass", "why": "<b>fine</b>"}
    form |= {"card": "pair-1-1", "back": CHANGED.partition("?")[2], "reviewer": "somebody else"}
    assert send(eve, CHANGED, "/compare/judge", **form).status_code == 403
    assert "Judge" not in Page(eve.get(CHANGED).text).text
    answer = send(ada, CHANGED, "/compare/judge", **form)
    assert answer.url.path == "/compare" and answer.url.params["one"] == "1-candidate"
    assert "ada : passes, <b>fine</b>" in Page(answer.text).text and "<b>fine" not in answer.text
    (row,) = Ledger(copy, "human_verdicts").rows()
    assert (row["reviewer"], row["passed"], row["machine"], row["blind"]) == ("ada", True, False, False)
    assert send(ada, CHANGED, "/compare/judge", **form | {"choice": "odd"}).status_code == 422
    assert send(ada, CHANGED, "/compare/judge", **form | {"check": "none none"}).status_code == 422
    assert len(Ledger(copy, "human_verdicts").rows()) == 1
