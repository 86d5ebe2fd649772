"""The review queue: real processes that claim at once, expiry, several reviews, and what each decision leads to."""

import json
import multiprocessing
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from flywheel.remedies.review import AUTO, DEADLINE, Queue, fold, status
from tests.flywheel.remedies.queued import row


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def queue_of(workspace: Workspace, count: int, **settings: float) -> Queue:
    queue = Queue(workspace)
    queue.add(2, [row(n, n / count) for n in range(count)], **settings)
    return queue


def claim_all(root: str, reviewer: str, out: str) -> None:
    """In a process of its own: claim and accept until nothing is left."""
    mine, queue = [], Queue(Workspace(root))
    while item := queue.next(reviewer):
        mine.append(item.item)
        queue.decide(item.item, "accepted", reviewer)
    Path(out).write_text(json.dumps(mine))


@pytest.mark.slow
def test_several_processes_never_get_the_same_item(workspace: Workspace, tmp_path: Path):
    queue = queue_of(workspace, 8)
    spawn = multiprocessing.get_context("spawn")
    outs = [str(tmp_path / f"{n}.json") for n in range(3)]
    people = [spawn.Process(target=claim_all, args=(str(workspace.root), f"p{n}", outs[n])) for n in range(3)]
    for p in people:
        p.start()
    for p in people:
        p.join(120)
        assert p.exitcode == 0
    claimed = [item for out in outs for item in json.loads(Path(out).read_text())]
    assert sorted(claimed) == sorted(queue.items()) and max(Counter(claimed).values()) == 1
    events = Counter((e["item"], e["kind"]) for e in queue.ledger.rows())
    assert set(events.values()) == {1} and len(events) == 24


def test_the_most_doubtful_comes_first_and_a_claim_is_kept(workspace: Workspace):
    queue = queue_of(workspace, 3)
    first = queue.next("ada")
    assert first.priority == pytest.approx(2 / 3) and queue.next("ada").item == first.item
    assert queue.next("bob").priority == pytest.approx(1 / 3)


def test_an_expired_claim_goes_to_the_next_and_can_no_longer_decide(workspace: Workspace):
    queue = queue_of(workspace, 1, claim_minutes=0)
    item = queue.next("ada")
    assert queue.next("bob").item == item.item
    with pytest.raises(UsageError, match="holds no claim"):
        queue.decide(item.item, "accepted", "ada")
    with pytest.raises(UsageError, match="run out"):
        queue.decide(item.item, "accepted", "bob")


def test_a_decision_needs_a_claim_and_a_name(workspace: Workspace):
    queue = queue_of(workspace, 1)
    with pytest.raises(UsageError, match="holds no claim"):
        queue.decide(next(iter(queue.items())), "accepted", "ada")
    for name in ("", " ", AUTO):
        with pytest.raises(UsageError, match="name of a person"):
            queue.next(name)
    with pytest.raises(UsageError, match="no item"):
        queue.find("zzzz")


@pytest.mark.parametrize("votes, outcome", [("aa", "accepted"), ("ar", "rejected"), ("aar", "accepted")])
def test_more_than_half_of_several_people_must_accept(workspace: Workspace, votes: str, outcome: str):
    queue = queue_of(workspace, 1, reviews=len(votes))
    for n, vote in enumerate(votes):
        assert queue.items().popitem()[1].outcome is None
        item = queue.next(f"p{n}")
        queue.decide(item.item, {"a": "accepted", "r": "rejected"}[vote], f"p{n}")
        assert queue.next(f"p{n}") is None  # nobody reviews an item twice
    assert queue.items().popitem()[1].outcome == outcome


@pytest.mark.parametrize("spelling", ["Ada", " ada ", "ＡＤＡ", "ada\u200b"])
def test_one_person_in_two_spellings_reviews_an_item_once(workspace: Workspace, spelling: str):
    queue = queue_of(workspace, 1, reviews=2)
    item = queue.next("ada")
    assert queue.next(spelling) == queue.next("ada")  # the same claim
    decided = queue.decide(item.item, "accepted", spelling)
    assert {s.reviewer for s in decided.slots if s.reviewer} == {"ada"}
    assert queue.next(spelling) is None and queue.next("adam") is not None


def test_edits_count_and_the_last_one_wins(workspace: Workspace):
    queue = queue_of(workspace, 1, reviews=2)
    assert queue.decide(queue.next("ada").item, "accepted", "ada", caption="two cats").caption == "two cats"
    assert queue.decide(queue.next("bob").item, "accepted", "bob", caption="two red cats").caption == "two red cats"


def test_auto_approval_is_recorded_as_such_and_leaves_decisions_of_people_alone(workspace: Workspace):
    queue = queue_of(workspace, 3)
    queue.decide(queue.next("ada").item, "rejected", "ada", reason="wrong word")
    assert queue.approve_all(2) == 2 and queue.approve_all(2) == 0
    assert status(queue.items().values()) == [
        {"round": 2, "capability": "count", "waiting": 0, "claimed": 0, "accepted": 2, "rejected": 1, AUTO: 2}
    ]


def test_what_nobody_reviewed_by_the_deadline_is_left_out(workspace: Workspace):
    queue = queue_of(workspace, 3, deadline_hours=5e-4)
    queue.decide(queue.next("ada").item, "accepted", "ada")
    assert [x.deadline > datetime.now(UTC) for x in queue.pending(2)] == [True, True]
    queue.wait(2, seconds=0.05)  # 1.8 s
    assert queue.leave_out(2) == 2 and queue.leave_out(2) == 0
    outcomes = {x.outcome: {s.reviewer for s in x.slots} for x in queue.items().values()}
    assert outcomes == {"accepted": {"ada"}, "rejected": {DEADLINE}}
    with pytest.raises(UsageError, match="name of a person"):
        queue.next(DEADLINE)


def test_without_a_deadline_people_take_their_time(workspace: Workspace):
    queue = queue_of(workspace, 2)
    assert len(queue.pending(2)) == len(queue.pending()) == 2 and not queue.pending(3)


def test_the_order_of_events_does_not_matter(workspace: Workspace):
    queue = queue_of(workspace, 2)
    queue.decide(queue.next("ada").item, "rejected", "ada")
    queue.next("bob")
    rows = queue.ledger.rows()
    assert fold(rows[::-1]) == fold(rows) and any(
        s.held(datetime.now(UTC) + timedelta(minutes=29)) for x in fold(rows).values() for s in x.slots
    )
