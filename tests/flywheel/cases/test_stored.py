"""Stored signals become cases: one per failure whatever the kind, each signal once, views and fold agree."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from flywheel.cases.attribution import affordable, attribute, batches
from flywheel.cases.capability import load_taxonomy
from flywheel.cases.events import case_id, event, fold, load_cases
from flywheel.cases.stored import gather, route_stored
from flywheel.catalog import database as catalog
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.presets import Attribution
from flywheel.signals.suite import Prompt


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


def agree(workspace: Workspace) -> dict[str, str]:
    """Status by case id, the same from SQL and from Python."""
    rows = catalog.query(workspace, "select case_id, status, track, capability, prompt_id, prompt, round from cases")
    folded = load_cases(workspace)
    assert {r.pop("case_id"): r for r in rows} == {
        c.case_id: {k: getattr(c, k) for k in ("status", "track", "capability", "prompt_id", "prompt", "round")}
        for c in folded.values()
    }
    return {i: c.status for i, c in folded.items()}


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
    (found,) = Ledger(workspace, "case_events").rows()
    assert found["case_id"] == case_id("suite-7", "count") and found["prompt_id"] == "suite-7"
    evidence = json.loads(found["evidence"])
    assert evidence["count"] == 3 and evidence["kinds"] == ["arena", "feedback", "mining"] and evidence["sure"]
    assert {s["signal_id"] for s in evidence["signals"]} == {"1", "2", "3"}


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
    assert set(agree(workspace).values()) == {"detected"}
    close(workspace, 1)
    assert set(agree(workspace).values()) == {"closed"}
    add(workspace, signal("3", "p", "three cats", **row), key="c")
    assert gather(workspace, round_=1) == {"failed": 1}
    assert set(agree(workspace).values()) == {"re-opened"}


def test_a_gather_killed_before_its_events_starts_again(workspace: Workspace):
    add(workspace, signal("1", "p", "three cats", capability="count"), key="a")
    gather(workspace)
    shutil.rmtree(workspace.path("ledger", "case_events"))  # the list of signals is there, its events are not
    assert gather(workspace) == {"detected": 1}
    assert len(list(workspace.path("cases", "gathered").glob("*"))) == 1 and gather(workspace) == {}


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
    assert set(agree(workspace).values()) == {"detected", "routed"}
    assert route_stored(workspace, settings) == {}  # nothing changed
    Ledger(workspace, "probes").append([stored("thin", 2, 2, 0)], key="q")
    assert route_stored(workspace, settings, round_=2) == {"human": 1}  # its seeds of both rounds are enough


def test_unsure_says_why():
    columns = {"seeds": [1, None, 3, 3], "seeds_passed": [0, None, 0, 0], "density": [1.0, None, None, 24.0]}
    table = pa.table(
        columns | {k: pa.nulls(4, pa.int64()) for k in ("enhanced_seeds", "enhanced_passed")}
    ).append_column("enhanced", pa.nulls(4, pa.string()))
    found = attribute(table, Attribution(seeds=3, min_seeds=3, unsure_margin=2))
    assert {t for t, _ in found} == {"unsure"}
    assert [r.split(":")[1].split(",")[0].strip() for _, r in found] == [
        "only 1 seeds were tried",
        "not experimented on yet",
        "none of 3 seeds passes",
        "none of 3 seeds passes",
    ]


def test_the_budget_pays_for_the_first_prompts_in_whole_batches():
    prompts = [Prompt(str(n), str(n), "t2i", (), ()) for n in range(70)]
    assert len(affordable(prompts, Attribution(seeds=3, budget=41))) == 10
    assert [len(b) for b in batches(affordable(prompts, Attribution(seeds=3)))] == [32, 32, 6]


EXPECTED = {"text": {"expected": "OPEN"}}


def test_capability_from_evidence():
    said = {
        ("text", "a sign that says OPEN", ""): "typography",
        ("text", "a sign that says 营业中", ""): "typography",  # Latin or not is told from what was expected
        ("written", "a slide titled “Plan”", ""): "slides",
        ("user", "a dog on a sofa", "the fingers look odd"): "portrait",
        ("user", "a dog", "Misspelled words"): "typography",
        ("question", "a red dog", "Is the dog red?"): "color",
        ("user", 'the word "你好"', ""): "multilingual_text",
        ("alignment", "three cats", ""): "count",
        ("alignment", "a cat", ""): "instruction_following",
    }
    rows = [
        {"verifier": v, "task": "t2i", "prompt": p, "evidence": json.dumps({"reason": r} | EXPECTED.get(v, {}))}
        for v, p, r in said
    ]
    found = load_taxonomy().tell(rows)
    assert [c for c, _ in found] == list(said.values())
    assert found[0][1] and not found[-1][1]
    edit = {"verifier": "user", "task": "ti2i", "prompt": "add a hat", "evidence": '{"reason": "not the same person"}'}
    other = edit | {"verifier": "text", "evidence": '{"expected": "营业中"}', "task": "t2i"}
    assert [c for c, _ in load_taxonomy().tell([edit, other])] == ["identity", "multilingual_text"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[capabilities]\na = 'x'\n[[rule]]\ncapability = 'b'", "not under"),
        ("[capabilities]\na = 'x'\n[[rule]]\ncapability = 'a'\nprompt = '('\n[[rule]]\ncapability = 'a'", "regular"),
        ("[capabilities]\na = 'x'\n[[rule]]\ncapability = 'a'\nprompt = 'x'", "last rule"),
        ("[[rule]]\nwhat = 1", "unknown key"),
    ],
)
def test_a_faulty_taxonomy_is_the_users_to_fix(tmp_path: Path, text: str, fault: str):
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=fault):
        load_taxonomy(path)


def test_the_taxonomy_covers_what_synthesis_and_suites_name():
    from curation.synthesis import capabilities
    from flywheel.signals.importers import DPG_CAPABILITY, GENEVAL_CAPABILITY

    named = {*capabilities(), *DPG_CAPABILITY.values(), *GENEVAL_CAPABILITY.values()}
    assert named <= load_taxonomy().capabilities.keys()


def test_fold_ignores_more_signals_and_late_older_rounds():
    base = {"case_id": "c", "capability": "count", "track": None, "prompt_id": "p", "prompt": "x"}
    rows = [base | {"round": r, "kind": k} for r, k in [(1, "detected"), (2, "passed"), (1, "remedied"), (3, "seen")]]
    assert fold(rows)["c"].status == "closed" and not fold(rows)["c"].is_open
