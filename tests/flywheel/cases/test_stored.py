"""Stored signals become cases: one per failure whatever the kind, each signal once; stored evidence routes them."""

import json
import shutil
from pathlib import Path

import pytest

from flywheel.cases.events import case_id, event, load_cases
from flywheel.cases.stored import gather, route_stored
from flywheel.catalog import database as catalog
from flywheel.core.ledger import Ledger
from flywheel.core.text import normalise
from flywheel.core.workspace import Workspace
from flywheel.presets import Attribution


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def signal(identity: str, prompt_id: str, prompt: str, **changes: object) -> dict:
    row = {"signal_id": identity, "kind": "feedback", "prompt_id": prompt_id, "prompt": prompt, "task": "t2i"}
    row |= {"verifier": "user", "passed": False, "evidence": "{}"}
    return row | changes


def add(workspace: Workspace, *rows: dict, key: str) -> None:
    Ledger(workspace, "signals").append(list(rows), key=key)


def close(workspace: Workspace, round_: int) -> None:
    cases = load_cases(workspace).values()
    Ledger(workspace, "case_events").append([event(c, round_, "passed", {}) for c in cases], key=f"close/{round_}")


def statuses(workspace: Workspace) -> dict[str, str]:
    """Status by case id: of the loaded cases, which the catalog's view agrees with."""
    rows = catalog.query(workspace, "select case_id, status, track, capability, prompt_id, prompt, round from cases")
    cases = load_cases(workspace)
    assert {r.pop("case_id"): r for r in rows} == {
        c.case_id: {k: getattr(c, k) for k in ("status", "track", "capability", "prompt_id", "prompt", "round")}
        for c in cases.values()
    }
    return {i: c.status for i, c in cases.items()}


def test_one_failure_is_one_case_across_kinds_and_spellings(workspace: Workspace):
    reason = json.dumps({"reason": "there are only two cats"})
    add(
        workspace,
        signal("1", "user-ab", "Three  cats.", evidence=reason),
        signal("2", "suite-7", "three cats", kind="mining", verifier="seeds", capability="count"),
        signal("3", "user-cd", "three cats", kind="arena", capability="count", verifier="arena"),
        signal("4", "suite-7", "three cats", passed=True),
        signal("5", "suite-7", "three cats", kind="evaluation", round=1, arm="candidate", capability="count"),
        key="a",
    )
    assert gather(workspace) == {"detected": 1}
    (case,) = Ledger(workspace, "case_events").rows()
    assert case["case_id"] == case_id("suite-7", "count") and case["prompt_id"] == "suite-7"
    evidence = json.loads(case["evidence"])
    assert evidence["count"] == 3 and evidence["kinds"] == ["arena", "feedback", "mining"] and evidence["sure"]
    assert {s["signal_id"] for s in evidence["signals"]} == {"1", "2", "3"}


def test_prompts_are_the_same_where_their_normal_forms_are(workspace: Workspace):
    spellings = ("a sign “ＯＰＥＮ”, in STRASSE", 'A sign: "open" in Straße?', ' a sign\u00a0"Open"; in strasse…')
    symbols = ("🐱", "🐶", "?!")  # without letters and digits a prompt stands for itself
    rows = [signal(str(n), f"user-{n}", p, capability="text") for n, p in enumerate((*spellings, *symbols))]
    add(workspace, *rows, key="a")
    assert gather(workspace) == {"detected": 4}
    assert {normalise(p) for p in spellings} == {'a sign "open" in strasse'} and {normalise(p) for p in symbols} == {""}
    assert load_cases(workspace).keys() == {case_id(f"user-{n}", "text") for n in (0, 3, 4, 5)}


@pytest.mark.parametrize("number", range(0x20))
def test_a_stored_failure_is_found_by_its_id_whatever_its_prompt_id_contains(workspace: Workspace, number: int):
    name = f'a\\{chr(number)}"\u2028🐱'
    mined = {"kind": "mining", "verifier": "seeds", "evidence": json.dumps({"seeds": 4, "seeds_passed": 1})}
    add(workspace, signal("1", name, "three cats", capability=f"c{name}", **mined), key="a")
    gather(workspace)
    assert route_stored(workspace, Attribution(seeds=3)) == {"rl": 1}  # the evidence has the case's id
    assert load_cases(workspace).keys() == {case_id(name, f"c{name}")}


def test_edits_of_other_references_are_other_cases(workspace: Workspace):
    rows = [signal(str(n), f"edit-{n}", "make it red", task="ti2i", capability="editing") for n in range(2)]
    add(workspace, *rows, key="a")
    assert gather(workspace) == {"detected": 2}


def test_signals_count_once_and_reopen_what_was_closed(workspace: Workspace):
    row = {"capability": "count"}
    add(workspace, signal("1", "p", "three cats", **row), key="a")
    assert gather(workspace) == {"detected": 1} and gather(workspace) == {}
    add(workspace, signal("2", "p", "three cats", **row), signal("1", "p", "three cats", **row), key="b")
    assert gather(workspace) == {"seen": 1}
    assert set(statuses(workspace).values()) == {"detected"}
    close(workspace, 1)
    assert set(statuses(workspace).values()) == {"closed"}
    add(workspace, signal("3", "p", "three cats", **row), key="c")
    assert gather(workspace, round_=1) == {"failed": 1}
    assert set(statuses(workspace).values()) == {"re-opened"}


def test_a_gather_killed_before_its_events_starts_again(workspace: Workspace):
    add(workspace, signal("1", "p", "three cats", capability="count"), key="a")
    gather(workspace)
    shutil.rmtree(workspace.path("ledger", "case_events"))  # the list of signals is there, its events are not
    assert gather(workspace) == {"detected": 1}
    assert len(list(workspace.path("cases", "gathered").glob("[!.]*"))) == 1 and gather(workspace) == {}


def test_stored_probes_of_all_rounds_decide_the_track(workspace: Workspace):
    names = ("enhanced", "seeds", "sparse", "dense", "thin", "unknown")
    add(workspace, *(signal(n, n, f"{n} cats", capability="count") for n in names), key="a")
    add(
        workspace,
        signal(
            "m", "mined", "mined cats", kind="mining", verifier="seeds", capability="count",
            evidence=json.dumps({"seeds": 4, "seeds_passed": 1}),
        ),
        key="b",
    )  # fmt: skip
    gather(workspace)

    def stored(name: str, round_: int, seeds: int, passed: int, enhanced: int = 0, density: float = 50.0) -> dict:
        row = {"probe_id": f"{name}{round_}", "case_id": case_id(name, "count"), "round": round_, "seeds": seeds}
        row |= {"seeds_passed": passed, "density": density, "enhanced": "better", "enhanced_seeds": 1}
        return row | {"enhanced_passed": enhanced}

    rows = [stored("enhanced", 1, 3, 1, 1), stored("seeds", 1, 3, 0), stored("seeds", 2, 3, 1)]
    rows += [stored("sparse", 1, 3, 0, density=3), stored("dense", 1, 3, 0), stored("thin", 1, 1, 0)]
    Ledger(workspace, "probes").append(rows, key="p")
    settings = Attribution(seeds=3, min_seeds=3)
    counts = {"human": 1, "pretraining": 1, "prompt_enhancement": 1, "rl": 2, "unsure": 1}
    assert route_stored(workspace, settings) == counts
    tracks = {c.prompt_id: c.track for c in load_cases(workspace).values()}
    assert tracks["thin"] == "unsure" and tracks["unknown"] is None and tracks["mined"] == "rl"
    assert set(statuses(workspace).values()) == {"detected", "routed"}
    assert route_stored(workspace, settings) == {}  # nothing changed
    Ledger(workspace, "probes").append([stored("thin", 2, 2, 0)], key="q")
    assert route_stored(workspace, settings, round_=2) == {"human": 1}  # its seeds of both rounds are enough
