"""The review queue: claims and decisions of two people."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flywheel.core.workspace import Workspace
from flywheel.remedies.review import Queue
from tests.dashboards.visits import Page, held, hidden, opened, send, signed_in
from tests.dashboards.workspace import candidates


def test_two_reviewers_never_hold_the_same_review_and_both_reviews_decide(shared: Workspace) -> None:
    ada, bob = signed_in(shared, "ada"), signed_in(shared, "bob")
    assert "You hold no sample, ada" in Page(ada.get("/review").text).text
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


def test_a_name_is_asked_for_where_there_are_no_tokens(tmp_path: Path, workspace: Workspace) -> None:
    visitor = opened(workspace)
    assert "Your name" in visitor.get("/review").text
    assert send(visitor, "/review?reviewer=ada", "/review/claim", reviewer=" ").status_code == 422
