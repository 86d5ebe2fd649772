"""People judge what a verifier judged: blind once, otherwise as often as they like."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.lens import connect
from flywheel.core.workspace import Workspace
from flywheel.signals.human_verdicts import _NEXT, Task, annotated, next_task, record
from tests.flywheel.signals.judged import judged


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return judged(tmp_path / "w", {"text": (7, 3), "count": (1, 0)})


def test_a_person_judges_every_picture_once_without_seeing_what_the_verifier_said(workspace: Workspace) -> None:
    machine = []
    while task := next_task(workspace, " Ada", "text"):
        assert next_task(workspace, "ada", "text") == task, "the same one, until it is judged"
        assert task.asked == {"expected": "A"} and "seen" not in str(asdict(task))
        assert record(workspace, task.signal_id, task.image, len(machine) % 2 == 0, "ada", blind=True)
        machine.append(int(task.signal_id.removeprefix("text-")) < 7)
    assert len(machine) == 10
    early = machine[:5]
    assert 1 <= sum(early) <= 4, "passes and fails come with equal chances while both are left"
    rows = Ledger(workspace, "human_verdicts").rows()
    assert len({r["image"] for r in rows}) == 10 and {r["reviewer"] for r in rows} == {"ada"}
    assert [r["machine"] for r in rows] == machine and all(r["blind"] for r in rows)
    assert next_task(workspace, "bob", "text") is None, "one blind verdict on each is enough"
    assert next_task(workspace, "bob", "count") is not None


def test_the_order_does_not_tell_what_comes_next(tmp_path: Path) -> None:
    """Over many people, the machine's second verdict is as often the same as the first one as not."""
    workspace, people = judged(tmp_path / "w", {"text": (40, 40)}), [f"person {n}" for n in range(24)]
    first = {name: next_task(workspace, name, "text") for name in people}
    rows = [
        {"verdict_id": name, "signal_id": t.signal_id, "image": t.image, "verifier": "text", "reviewer": name}
        | {"machine": passed(t), "passed": True, "blind": True}
        for name, t in first.items()
    ]
    Ledger(workspace, "human_verdicts").append(rows, key="first")
    pairs = [(passed(t), passed(next_task(workspace, name, "text"))) for name, t in first.items()]
    assert set(pairs) == {(a, b) for a in (True, False) for b in (True, False)}
    assert 6 <= sum(a == b for a, b in pairs) <= 18


def passed(task: Task) -> bool:
    """What the machine said of one of 80 tasks."""
    return int(task.signal_id.removeprefix("text-")) < 40


def test_a_blind_verdict_counts_once_and_never_after_the_verifiers_was_seen(workspace: Workspace) -> None:
    task = next_task(workspace, "ada", "text")
    assert record(workspace, task.signal_id, task.image, None, "ada", blind=True)
    assert left(workspace, "bob") == 10, "who cannot tell takes it from nobody else"
    assert not record(workspace, task.signal_id, task.image, True, "ADA ", blind=True)
    seen = next_task(workspace, "bob", "text")
    assert record(workspace, seen.signal_id, seen.image, False, "bob", blind=False, why=" too dark ")
    assert not record(workspace, seen.signal_id, seen.image, False, "Bob", blind=True)
    assert next_task(workspace, "bob", "text") != seen
    rows = Ledger(workspace, "human_verdicts").rows()
    assert [(r["passed"], r["blind"], r["why"]) for r in rows] == [(None, True, ""), (False, False, "too dark")]
    assert (rows[1]["verifier"], rows[1]["capability"], rows[1]["prompt_id"]) == ("text", "texts", seen.prompt_id)


def left(workspace: Workspace, who: str) -> int:
    """How many pictures this person could still be shown."""
    with closing(connect(workspace, ("signals", "human_verdicts"))) as con:
        shown = {"verifier": "text", "person": who, "spellings": [who]}
        found = [con.execute(_NEXT.replace("LIMIT 1", ""), shown | {"passed": p}).fetchall() for p in (True, False)]
    return sum(map(len, found))


def test_of_several_verdicts_of_one_person_the_last_is_shown(workspace: Workspace) -> None:
    image = "samples/1/p3.png"
    for who, passed, why in (("ada", False, "wrong"), ("bob", True, ""), ("Ada", True, "I was wrong")):
        assert record(workspace, "text-3", image, passed, who, blind=False, why=why)
    with closing(connect(workspace, ("human_verdicts",))) as con:
        found = annotated(con, [image])
        assert annotated(con, []) == {}
    said = [(p["reviewer"], p["passed"], p["why"]) for p in found["text-3", image]]
    assert found.keys() == {("text-3", image)}
    assert said == [("Ada", True, "I was wrong"), ("bob", True, "")]


def test_two_clicks_at_once_are_one_blind_verdict(workspace: Workspace) -> None:
    task = next_task(workspace, "ada", "text")
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(lambda _: record(workspace, task.signal_id, task.image, True, "ada", blind=True), range(4))
        )
    assert sum(done) == 1 and len(Ledger(workspace, "human_verdicts").rows()) == 1


@pytest.mark.parametrize(
    ("signal", "image", "who", "why"),
    [
        ("text-0", "samples/1/p0.png", " ", "give the name"),
        ("text-0", "samples/1/p1.png", "ada", "no verifier judged 'samples/1/p1.png'"),
        ("none", "samples/1/p0.png", "ada", "no verifier judged"),
        ("' OR true --", "samples/1/p0.png", "ada", "no verifier judged"),
    ],
)
def test_only_what_was_judged_can_be_judged(workspace: Workspace, signal: str, image: str, who: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        record(workspace, signal, image, True, who, blind=False)
    assert Ledger(workspace, "human_verdicts").rows() == []


@pytest.mark.parametrize(
    "changes",
    [{"arm": "hidden"}, {"passed": None}, {"image": None}, {"kind": "feedback"}],
    ids=["hidden prompts", "not applied", "no picture", "not an evaluation"],
)
def test_what_people_do_not_judge(tmp_path: Path, changes: dict) -> None:
    workspace = judged(tmp_path / "w", {"text": (3, 3)}, **changes)
    assert next_task(workspace, "ada", "text") is None


def test_odd_evidence_costs_only_the_hint(tmp_path: Path) -> None:
    for n, evidence in enumerate(('["a"]', "no JSON", None)):
        workspace = judged(tmp_path / f"w{n}", {"text": (1, 0)}, evidence=evidence)
        assert next_task(workspace, "ada", "text").asked == {}
