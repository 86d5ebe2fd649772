"""Pages that write: reviews and votes go through the ledger's own functions, and only for those who may."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dashboards.access import Access, Person
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.remedies.review import Item, Queue, held_by
from flywheel.rounds.promotion import incumbent
from tests.dashboards.conftest import build, candidates, opened
from tests.dashboards.test_access import hidden
from tests.dashboards.test_report import Page

TOKENS = {
    f"{name}-has-this-token": Person(name, role)
    for name, role in {**dict.fromkeys(("ada", "bob", "carl", "dora"), "review"), "eve": "read"}.items()
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace of its own, with a queue of three samples that need two reviews each."""
    workspace = build(tmp_path_factory.mktemp("writing") / "w")
    candidates(workspace, 3, ["s0", "s1", "s2"])
    rows = [
        {
            "capability": "typography",
            "sample_id": f"s{n}",
            "caption": f"card {n}",
            "priority": n / 4,
            "evidence": {"ocr": 0.5},
        }
        for n in range(3)
    ]
    Queue(workspace).add(3, rows, reviews=2)
    return workspace


def signed_in(workspace: Workspace, name: str) -> TestClient:
    visitor = opened(workspace, Access(TOKENS))
    assert visitor.post("/login", data={"token": f"{name}-has-this-token"}).status_code == 200
    return visitor


def held(workspace: Workspace, reviewer: str) -> Item | None:
    return held_by(reviewer, Queue(workspace).items().values())


def send(visitor: TestClient, page: str, to: str, **fields: str):
    """Send the form of a page with its hidden fields."""
    html = visitor.get(page).text
    inputs = {
        a["name"]: a.get("value", "") for t, a in Page(html).elements if t == "input" and a.get("type") == "hidden"
    }
    return visitor.post(to, data=inputs | fields)


def test_two_reviewers_never_hold_the_same_review_and_both_reviews_decide(shared: Workspace) -> None:
    ada, bob = signed_in(shared, "ada"), signed_in(shared, "bob")
    assert "You hold nothing, ada" in Page(ada.get("/review").text).text
    first = send(ada, "/review", "/review/claim")
    assert hidden(first.text, "item") == next(x.item for x in Queue(shared).items(3).values() if x.sample_id == "s2")
    assert "review 1 of 2" in Page(first.text).text
    (picture,) = (a["src"] for t, a in Page(first.text).elements if t == "img")
    assert ada.get(picture).headers["content-type"] == "image/png"
    send(bob, "/review", "/review/claim")
    mine, theirs = (held(shared, n) for n in ("ada", "bob"))
    assert {s.reviewer for s in mine.slots} >= {"ada"} and [s.reviewer for s in mine.slots].count("ada") == 1
    assert theirs.item == mine.item  # it needs two reviews: one slot each
    assert {s.reviewer for s in theirs.slots} == {"ada", "bob"}
    after = send(ada, "/review", "/review/decide", decision="accept", caption="a better card")
    assert hidden(after.text, "item") != mine.item  # the next one came at once
    send(bob, "/review", "/review/decide", decision="reject", reason="blurred", caption="card 2")
    done = Queue(shared).find(mine.item)
    assert (done.outcome, done.caption) == ("rejected", "a better card")  # one of two is no majority


def test_one_review_is_one_persons(shared: Workspace) -> None:
    candidates(shared, 5, ["t0", "t1"])
    common = {"capability": "typography", "caption": "a card", "priority": 0.9, "evidence": {}}
    Queue(shared).add(5, [common | {"sample_id": i} for i in ("t0", "t1")])
    people = [signed_in(shared, name) for name in ("carl", "dora")]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda visitor: send(visitor, "/review", "/review/claim"), people))
    items = [hidden(answer.text, "item") for answer in answers]
    assert len(set(items)) == 2
    answer = send(people[1], "/review", "/review/decide", item=items[0], decision="accept", reviewer="carl")
    assert answer.status_code == 422 and "dora holds no claim" in answer.text
    assert held(shared, "carl").item == items[0]


def test_who_may_only_read_neither_reviews_nor_votes(shared: Workspace) -> None:
    eve = signed_in(shared, "eve")
    before = len(Ledger(shared, "reviews").rows()), len(Ledger(shared, "battles").rows())
    assert "ask for one with the role review" in eve.get("/review").text
    for path in ("/review/claim", "/review/decide", "/arena/vote", "/rounds/2/decision"):
        answer = send(eve, "/review", path, decision="accept", choice="left")
        assert answer.status_code == 403 and "This needs the role" in answer.text
    assert (len(Ledger(shared, "reviews").rows()), len(Ledger(shared, "battles").rows())) == before


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
    assert "battles, 1000 is the middle" in Page(bob.get("/arena").text).text


def test_a_pair_that_was_never_shown_cannot_be_voted_on(shared: Workspace) -> None:
    ada = signed_in(shared, "ada")
    assert send(ada, ARENA, "/arena/vote", battle="0" * 32, choice="left").status_code == 404
    assert send(ada, ARENA, "/arena/vote", choice="up").status_code == 422


def test_a_name_is_asked_for_where_there_are_no_tokens(tmp_path: Path, workspace: Workspace) -> None:
    visitor = opened(workspace)
    assert "Your name" in visitor.get("/review").text
    assert send(visitor, "/review?reviewer=ada", "/review/claim", reviewer=" ").status_code == 422


def test_an_operator_decides_about_a_round_and_others_do_not(shared: Workspace) -> None:
    access = Access({"operator-has-this-token": Person("oda", "operate")})
    oda = opened(shared, access)
    oda.post("/login", data={"token": "operator-has-this-token"})
    assert send(oda, "/rounds/2", "/rounds/2/decision", kind="reject", why=" ").status_code == 422
    answer = send(oda, "/rounds/2", "/rounds/2/decision", kind="reject", why="faces look wrong")
    assert "reject by oda" in Page(answer.text).text and "faces look wrong" in answer.text
    assert incumbent(shared).round == 1
    assert "/rounds/2/decision" not in signed_in(shared, "ada").get("/rounds/2").text
