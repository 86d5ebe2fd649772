"""The calibration page: rates of verifiers, and judging without seeing what they decided."""

from __future__ import annotations

import json

from starlette.testclient import TestClient

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.trust import FEWEST
from tests.dashboards.visits import Page, hidden, opened, send, signed_in


def test_a_reviewer_judges_blind_until_the_verifier_is_calibrated(shared: Workspace) -> None:
    ada, path = signed_in(shared, "ada"), "/calibration?verifier=color"
    assert "not calibrated" in ada.get(path).text
    truth = {(s["signal_id"], s["image"]): s["passed"] for s in Ledger(shared, "signals").rows()}
    seen = []
    for _ in range(4):
        page = ada.get(path)
        task = ada.get(f"/api{path}").json()["task"]
        shown = (hidden(page.text, "signal"), hidden(page.text, "image"))
        assert shown == (task["signal_id"], task["image"]) and shown not in seen
        bench = page.text[page.text.index("<article") : page.text.index("</article")]
        assert not {"passed", "failed", "seen"} & set(Page(bench).text.split()), "nothing tells what it decided"
        assert set(task["asked"]) <= {"expected", "question"}
        (picture,) = (a["src"] for t, a in Page(bench).elements if t == "img")
        assert ada.get(picture).status_code == 200
        answer = send(ada, path, "/calibration/judge", choice="pass" if truth[shown] else "fail")
        assert answer.url.path == "/calibration" and answer.status_code == 200
        seen.append(shown)
    rows = [r for r in Ledger(shared, "human_verdicts").rows() if r["verifier"] == "color"]
    assert [(r["signal_id"], r["image"]) for r in rows] == seen
    assert all(r["blind"] and r["reviewer"] == "ada" and r["machine"] == r["passed"] for r in rows)
    known = {t["verifier"]: t for t in ada.get("/api/calibration").json()["verifiers"]}
    assert known["color"]["passes"] + known["color"]["fails"] == 4 < 2 * FEWEST
    assert known["color"]["state"] == "not calibrated" and known["count"]["passes"] == 0
    again = {"signal": seen[0][0], "image": seen[0][1], "choice": "fail"}
    send(ada, path, "/calibration/judge", **again)
    assert len([r for r in Ledger(shared, "human_verdicts").rows() if r["verifier"] == "color"]) == 4


def test_who_may_only_read_judges_nothing(shared: Workspace) -> None:
    eve = signed_in(shared, "eve")
    page = eve.get("/calibration?verifier=color")
    assert "ask for one with the role review" in page.text and "<article" not in page.text
    assert eve.get("/api/calibration?verifier=color").json()["task"] is None
    assert send(eve, "/calibration", "/calibration/judge", signal="x", choice="pass").status_code == 403


def test_without_tokens_a_name_is_asked_for(client: TestClient) -> None:
    page = client.get("/calibration?verifier=count").text
    assert "Your name" in page and "<article" not in page
    assert "<article" in client.get("/calibration?verifier=count&reviewer=ada").text


def test_odd_requests_are_one_sentence(client: TestClient, empty: Workspace) -> None:
    assert client.get("/calibration?verifier=none").status_code == 404
    assert json.loads(client.get("/api/calibration?verifier=none").text)["error"].startswith("No verifier none")
    assert "No verifier has judged a picture yet" in opened(empty).get("/calibration").text
    page = "/calibration?verifier=count&reviewer=ada"
    sent = send(client, page, "/calibration/judge", signal="x", image="y", choice="pass")
    assert sent.status_code == 422 and "no verifier judged" in sent.text
