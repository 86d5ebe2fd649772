"""Blind pairs and votes."""

import re

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import Page, send, signed_in

ARENA = "/arena?one=checkpoints/round-0001-candidate&other=checkpoints/round-0002-candidate"


def test_a_pair_is_blind_and_a_vote_counts_once(shared: Workspace) -> None:
    ada = signed_in(shared, "ada")
    page = ada.get(ARENA)
    pictures = [a["src"] for t, a in Page(page.text).elements if t == "img"]
    assert len(pictures) == 2 and not any("samples" in p for p in pictures)
    left = ada.get(pictures[0]).content
    answer = send(ada, ARENA, "/arena/vote", choice="left")
    (row,) = Ledger(shared, "battles").rows()
    assert row["winner"] == "model_a" and row["judge"] == "ada"
    folder = shared.path("samples", row["model_a"].removeprefix("checkpoints/"))
    assert left in {p.read_bytes() for p in folder.glob("*.png")}
    assert f"Recorded: {row['model_a']} on the left, {row['model_b']} on the right" in Page(answer.text).text
    again = {a["name"]: a["value"] for t, a in Page(page.text).elements if t == "input" and a.get("type") == "hidden"}
    ada.post("/arena/vote", data=again | {"choice": "right"})
    assert len(Ledger(shared, "battles").rows()) == 1


def test_sides_are_drawn_by_lot_and_what_is_in_service_loses_signals(shared: Workspace) -> None:
    bob = signed_in(shared, "bob")
    lefts = set()
    for _ in range(5):
        answer = send(bob, ARENA, "/arena/vote", choice="bad")
        lefts.add(re.search(r"Recorded: <code>(.*?)</code>", answer.text)[1])
    assert len(lefts) == 2
    lost = [s for s in Ledger(shared, "signals").rows() if s["kind"] == "arena"]
    assert {s["checkpoint"] for s in lost} == {"checkpoints/round-0002-candidate"} and len(lost) >= 5
    send(bob, ARENA, "/arena/vote", choice="left")
    send(bob, ARENA, "/arena/vote", choice="right")
    assert "battles; 1000 is the centre" in Page(bob.get("/arena").text).text


def test_a_pair_that_was_never_shown_cannot_be_voted_on(shared: Workspace) -> None:
    ada = signed_in(shared, "ada")
    assert send(ada, ARENA, "/arena/vote", battle="0" * 32, choice="left").status_code == 404
    assert send(ada, ARENA, "/arena/vote", choice="up").status_code == 422
