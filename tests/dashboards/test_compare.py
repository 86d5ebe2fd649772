"""Two evaluations side by side: what is broken, fixed, the same, or judged in one of them only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from dashboards.compare import Evaluation, capabilities, compare, evaluations, proposed
from flywheel.catalog.database import connect
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.human_verdicts import record

VIEWS = ("signals", "human_verdicts")
BEFORE, AFTER = Evaluation(1, "candidate", "c/1", 0), Evaluation(2, "candidate", "c/2", 0)


def verdict(round_: int, prompt: str, passed: bool | None, seed: int = 0, **changes: Any) -> dict[str, Any]:
    folder = f"samples/{round_}" + (f"/seed-{seed}" if seed else "")
    verifier = changes.get("verifier", "text")
    row = {"signal_id": f"{prompt}-{seed}-{verifier}", "round": round_, "arm": "candidate", "kind": "evaluation"}
    row |= {"checkpoint": f"c/{round_}", "prompt_id": prompt, "prompt": f"draw {prompt}", "verifier": verifier}
    row |= {"capability": "typography", "passed": passed, "score": 0.9 if passed else 0.1, "threshold": 0.5}
    return row | {"image": f"{folder}/{prompt}.png", "evidence": json.dumps({"expected": "A"})} | changes


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Prompts named by what happens to them; `seeded` breaks from its second seed alone, `both` is fixed and broken."""
    workspace = Workspace(tmp_path_factory.mktemp("compare") / "w")
    outcomes = {"broken": (True, False), "fixed": (False, True), "good": (True, True), "bad": (False, False)}
    outcomes |= {"lost": (True, None), "none": (None, None)}
    rows = [verdict(n, p, both[n - 1]) for p, both in outcomes.items() for n in (1, 2)]
    rows += [verdict(n, "seeded", n == 1 or not seed, seed) for n in (1, 2) for seed in (0, 1)]
    rows += [verdict(n, "both", n == 1) for n in (1, 2)]
    rows += [verdict(n, "both", n == 2, verifier="count", capability="count") for n in (1, 2)]
    for n in (1, 2):
        for question in ("is it red?", "is it round?"):
            passed = question == "is it red?" or n == 2
            asked = {"verifier": "question", "evidence": json.dumps({"question": question})}
            rows.append(verdict(n, "asked", passed, signal_id=f"asked-{question}", **asked))
    rows += [verdict(2, "new", False), verdict(1, "gone", True), verdict(2, "undrawn", False, image=None)]
    rows += [verdict(2, "secret", n, arm="hidden") for n in (True, False)]
    rows += [verdict(2, "broken", True, arm="control")]
    for system, passed in (("v1", False), ("v2", True)):  # outside of rounds
        rows.append(verdict(0, "told", passed, round=None, arm=None, checkpoint=system, signal_id=f"told-{system}"))
    Ledger(workspace, "signals").append(rows, key="s")
    record(workspace, "broken-0-text", "samples/2/broken.png", True, "ada", blind=False, why="it is there")
    return workspace


@pytest.fixture
def con(workspace: Workspace) -> Iterator[Any]:
    with closing(connect(workspace, VIEWS)) as opened:
        yield opened


def test_broken_ones_come_first_then_fixed_ones_and_the_rest_only_when_asked(con: Any) -> None:
    counts, pairs = compare(con, BEFORE, AFTER, limit=50)
    assert [(p.prompt_id, p.seed, p.change) for p in pairs] == [
        ("both", 0, "broken"), ("broken", 0, "broken"), ("seeded", 1, "broken"),
        ("asked", 0, "fixed"), ("fixed", 0, "fixed"),
    ]  # fmt: skip
    assert counts == {"broken": 3, "fixed": 2, "unjudged": 3, "same": 4}


@pytest.mark.parametrize(
    ("show", "expected"),
    [
        ("broken", {"both", "broken", "seeded"}),
        ("fixed", {"asked", "fixed"}),
        ("unjudged", {"lost", "new", "gone"}),
        ("same", {"good", "bad", "none", "seeded"}),
        ("all", {"both", "broken", "seeded", "asked", "fixed", "lost", "new", "gone", "good", "bad", "none"}),
    ],
)
def test_each_kind_can_be_shown(con: Any, show: str, expected: set[str]) -> None:
    _, pairs = compare(con, BEFORE, AFTER, show=show, limit=50)
    assert {p.prompt_id for p in pairs} == expected


def test_swapped_evaluations_break_what_was_fixed(con: Any) -> None:
    counts, pairs = compare(con, AFTER, BEFORE, limit=50)
    assert [p.prompt_id for p in pairs] == ["asked", "both", "fixed", "broken", "seeded"]
    assert counts == {"broken": 3, "fixed": 2, "unjudged": 3, "same": 4}


def test_pages_cover_every_pair_once(con: Any) -> None:
    seen = []
    for offset in range(0, 12, 5):
        seen += compare(con, BEFORE, AFTER, show="all", limit=5, offset=offset)[1]
    assert len(seen) == 12 and len({(p.prompt_id, p.seed) for p in seen}) == 12


def test_a_pair_has_every_verdict_with_scores_pictures_and_what_people_said(con: Any) -> None:
    pairs = {(p.prompt_id, p.seed): p for p in compare(con, BEFORE, AFTER, show="all", limit=50)[1]}
    both = pairs["both", 0].verdicts
    assert [(v.verifier, v.change) for v in both] == [("text", "broken"), ("count", "fixed")]
    assert (both[0].before.score, both[0].after.score, both[0].after.threshold) == (0.9, 0.1, 0.5)
    assert pairs["seeded", 1].after_image == "samples/2/seed-1/seeded.png"
    assert pairs["seeded", 0].before_image == "samples/1/seeded.png" and pairs["broken", 0].prompt == "draw broken"
    assert [(v.question, v.change) for v in pairs["asked", 0].verdicts] == [
        ("is it round?", "fixed"), ("is it red?", "same"),
    ]  # fmt: skip
    lost, new = pairs["lost", 0].verdicts[0], pairs["new", 0]
    assert lost.change == "unjudged" and lost.after.passed is None
    assert new.before_image is None and new.verdicts[0].before is None and new.verdicts[0].change == "unjudged"
    broken = pairs["broken", 0].verdicts[0]
    assert broken.before.people == [] and broken.after.evidence == {"expected": "A"}
    assert [(p["reviewer"], p["passed"], p["why"]) for p in broken.after.people] == [("ada", True, "it is there")]


def test_one_capability_alone(con: Any) -> None:
    counts, pairs = compare(con, BEFORE, AFTER, capability="count", limit=50)
    assert [(p.prompt_id, p.change, len(p.verdicts)) for p in pairs] == [("both", "fixed", 1)]
    assert sum(counts.values()) == 1
    assert compare(con, BEFORE, AFTER, capability="' OR true --", limit=50)[1] == []


def test_evaluations_are_those_of_rounds_without_hidden_prompts(con: Any) -> None:
    known = evaluations(con)
    assert [e.name for e in known[:3]] == ["2-candidate", "2-control", "1-candidate"]
    assert {e.name for e in known[3:]} == {"v1", "v2"}, "and other systems whose pictures were judged"
    assert [e.label for e in known[:2]] == ["round 2, candidate", "round 2, control"]
    assert known[0].checkpoint == "c/2" and known[1].verdicts == 1
    assert capabilities(con, known[0], known[2]) == ["count", "typography"]


def test_systems_outside_of_rounds_are_compared(con: Any) -> None:
    known = {e.name: e for e in evaluations(con)}
    counts, pairs = compare(con, known["v1"], known["v2"], limit=9)
    assert counts == {"broken": 0, "fixed": 1, "unjudged": 0, "same": 0} and pairs[0].prompt == "draw told"
    assert proposed([known["v2"], known["v1"]], {}) == ("v1", "v2")


def test_a_candidate_is_compared_with_its_incumbent_where_nobody_chose() -> None:
    known = [Evaluation(n, arm, f"c/{n}", 1) for n in (4, 3, 2, 1) for arm in ("candidate", "control")]
    assert proposed(known, {4: "c/2", 3: "c/2"}) == ("2-candidate", "4-candidate")
    assert proposed(known, {3: "c/1"}, "3-candidate") == ("1-candidate", "3-candidate")
    assert proposed(known, {}) == ("4-control", "4-candidate")
    assert proposed(known[:1], {}) == ("", "4-candidate") and proposed([], {}) == ("", "")
    assert proposed(known, {}, "9-candidate") == ("", "9-candidate")
