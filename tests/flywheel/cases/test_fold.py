"""What a case is after its events: the view `cases`, and `case_id` in SQL."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.cases.events import case_id, detect, event, load_cases, retest
from flywheel.cases.fold import connect
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.flywheel.cases.builders import folded, signal

# Where JSON writers differ: control characters, quotation marks, backslashes (also before "u"), separators, emoji.
CODES = [*range(0x20), 0x22, 0x2F, 0x5C, 0x7F, 0x80, 0x85, 0xA0, 0x2028, 0x2029, 0xFEFF, 0xFFFF, 0x1F600, 0x10FFFF]
AWKWARD = [*map(chr, CODES), "\\u000B", "\\\\u001F", "u001f", "a", "é", "字"]
TEXTS = st.lists(st.sampled_from(AWKWARD), max_size=8).map("".join) | st.text(max_size=12)


def ids_in_sql(con: duckdb.DuckDBPyConnection, pairs: Sequence[tuple[str, str]]) -> list[str]:
    asked = "SELECT case_id(?::VARCHAR, ?::VARCHAR)"
    return [con.execute(asked, pair).fetchall()[0][0] for pair in pairs]


def test_every_awkward_character_has_one_case_id(tmp_path: Path):
    pairs = [pair for text in AWKWARD for pair in ((text, "count"), ("p", text), (f"\\{text}\\", f'"{text}"'))]
    with closing(connect(Workspace(tmp_path / "w"))) as con:
        assert ids_in_sql(con, pairs) == [case_id(*pair) for pair in pairs]


def test_python_and_sql_give_one_case_id(tmp_path: Path):
    with closing(connect(Workspace(tmp_path / "w"))) as con:

        @settings(max_examples=300, deadline=None)
        @given(TEXTS, TEXTS)
        def agree(prompt_id: str, capability: str) -> None:
            assert ids_in_sql(con, [(prompt_id, capability)]) == [case_id(prompt_id, capability)]

        agree()


def test_the_fold_of_a_round_and_its_retest(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    ledger = Ledger(workspace, "case_events")
    ledger.append(detect([signal(p, "count", False) for p in "abc"], {}, 1), key="detect/1")
    ledger.append([event(c, 1, "routed", {}, track="rl") for c in load_cases(workspace).values()], key="route/1")
    ledger.append([event(c, 2, "remedied", {}) for c in load_cases(workspace).values()], key="remedy/2")
    results = {("a", "count"): True, ("b", "count"): False}
    ledger.append(retest(results, load_cases(workspace), 2), key="retest/2")
    with closing(connect(workspace)) as con:
        rows = con.execute("SELECT prompt_id, status, track, fixed_in FROM cases ORDER BY prompt_id").fetchall()
    assert rows == [("a", "closed", "rl", 2), ("b", "re-opened", "rl", None), ("c", "remedied", "rl", None)]
    assert load_cases(workspace).keys() == {case_id(p, "count") for p in "abc"}
    assert {c.prompt_id: c.is_open for c in load_cases(workspace).values()} == {"a": False, "b": True, "c": True}


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([(1, "detected")], "detected"),
        ([(1, "routed"), (1, "detected")], "routed"),  # at one moment: the later kind in a case's life
        ([(1, "detected"), (2, "failed"), (2, "remedied")], "re-opened"),
        ([(1, "detected"), (2, "passed"), (1, "remedied"), (3, "seen")], "closed"),  # `seen` and late events of round 1
        ([(1, "detected"), (2, "passed"), (3, "failed")], "re-opened"),
    ],
)
def test_the_last_round_decides_the_status(tmp_path: Path, events: list[tuple[int, str]], status: str):
    base = {"case_id": "c", "event_id": "e", "capability": "count", "prompt_id": "p", "prompt": "x"}
    rows = [base | {"round": r, "kind": k} for r, k in events]
    case = folded(tmp_path, rows)["c"]
    assert (case.status, case.round, case.is_open) == (status, 1, status != "closed")


def test_in_one_round_the_last_event_decides_and_the_last_track_stays(tmp_path: Path):
    base = {"case_id": "c", "capability": "count", "prompt_id": "p", "round": 1}
    detected = base | {"kind": "detected", "prompt": "x", "event_id": "1"}
    first, second = (base | {"kind": "routed", "track": t, "prompt": "y", "event_id": t} for t in ("rl", "human"))
    remedied = base | {"kind": "remedied", "prompt": "z", "event_id": "2"}
    case = folded(tmp_path, [detected], [remedied], [second], [first])["c"]
    assert (case.status, case.track, case.prompt) == ("routed", "rl", "x")
