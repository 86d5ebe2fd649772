"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest

from flywheel.cli.console import json_text, print_differences, print_explanation, print_rows, print_summary

ROUND = {
    "round": 2,
    "verdict": "PROMOTE",
    "reason": "better in color",
    "failure_rate": {"color": 0.25, "count": 0.5},
    "control_failure_rate": {"color": 0.5},
    "hidden_failure_rate": {"color": 0.4},
    "targets": ["color"],
    "fixed": ["c1", "c2"],
    "broken": [],
    "other_failure_rates": {"data": {"color": 0.5, "count": 0.5}, "student": {"color": 0.25, "count": 1.0}},
    "student": {"verdict": "REJECT"},
}


def test_rows_are_a_table_or_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"name": "été", "n": None}, {"name": "b", "n": 2}], True)
    assert json.loads(capsys.readouterr().out) == [{"name": "été", "n": None}, {"name": "b", "n": 2}]
    print_rows([{"name": "été", "n": None}, {"name": "b", "n": 2}], False)
    shown = capsys.readouterr().out
    assert "été" in shown and "None" not in shown
    print_rows([], False)
    assert capsys.readouterr() == ("", "no rows\n")
    print_rows([], True)
    assert capsys.readouterr().out == "[]\n"


def test_json_is_what_every_reader_takes() -> None:
    odd = {
        "nan": float("nan"),
        "list": (float("inf"), 1.5),
        "at": date(2026, 1, 2),
        "sums": [Decimal("2.50"), Decimal(3)],
    }
    text = json_text(odd | {"none": Decimal("NaN"), "name": "été", 7: True})
    assert text == (
        '{"nan": null, "list": [null, 1.5], "at": "2026-01-02", "sums": [2.5, 3],'
        ' "none": null, "name": "été", "7": true}'
    )


def test_rows_for_people_fit_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [{"case_id": "0123456789abcdef", "track": None, "image": "samples/x.png", "prompt": "[red] card " * 200}]
    print_rows(rows, False, shown=("case_id", "track", "prompt"))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and 3 < len(lines) <= 9, "a long prompt has a few lines"
    first = next(line for line in lines if "0123456789abcdef" in line)
    assert "[red] card" in first and sum("…" in line for line in lines) == 1
    funnel = [{"stage": "S1", "filter": "spatial_entropy", "status": "not configured", "entered": 9, "dropped": None,
               "quarantined": 0, "bucket": 256}]  # fmt: skip
    print_rows(funnel, False)
    shown = capsys.readouterr().out
    assert "spatial_entropy" in shown and max(map(len, shown.splitlines())) <= 80, "no name is cut"
    print_rows(rows, True, shown=("case_id",))
    assert json.loads(capsys.readouterr().out) == rows


def test_a_summary_has_a_table_per_round_the_counts_and_the_paths(capsys: pytest.CaptureFixture[str]) -> None:
    first = ROUND | {
        "round": 1,
        "failure_rate": {"color": 0.75},
        "control_failure_rate": {},
        "targets": [],
        "fixed": [],
        "other_failure_rates": {},
    }
    counts = {"input": 9, "admitted": 6, "dropped": 2, "quarantined": 1}
    paths = {
        "workspace": "w",
        "report": "r.html",
        "shards": "m.json",
        "checkpoints": ("c1", "c2"),
        "sql": "flywheel sql",
    }
    print_summary({"rounds": [first, ROUND], "seconds": 61.2, "peak_rss_bytes": 3 * 2**30, **counts, **paths})
    shown = capsys.readouterr().out
    second = shown[shown.index("Round 2") :]
    assert "Round 1: PROMOTE" in shown and "color (targeted)" in second
    assert "75%" in second and "25%" in second and "40%" in second and "fixed 2: c1 c2" in second
    assert "RL, on the candidate alone: color 50% → 25%" in shown
    assert "student: worse than its teacher; count 50% → 100%" in shown
    assert "9 input = 6 admitted + 2 dropped + 1 quarantined" in shown
    assert "Failing pictures of color: 75% before, 25% after. Trained as long without that data: 50%." in " ".join(
        shown.split()
    )
    assert "The gate decided PROMOTE: better in color." in shown and "flywheel dashboard -w w" in shown
    assert "checkpoints  c1 c2" in shown and "61 s, peak memory 3.0 GiB" in shown


def test_differences_name_changes_and_only_stages_that_moved(capsys: pytest.CaptureFixture[str]) -> None:
    total = {"before": 9, "after": 7, "enters": 0, "leaves": 2}
    still = {"stage": "S1", "enters": 0, "leaves": 0, "entering": [], "leaving": []}
    moved = {"stage": "S2", "enters": 0, "leaves": 2, "entering": [], "leaving": ["a" * 64, "b" * 64]}
    answer = {"changes": [{"line": "S2.size.min", "before": 64, "after": 96}], "not_configured": {"clip": "no weights"}}
    answer |= {"admitted": total, "stages": [still, moved], "funnel": [{"filter": "size", "dropped": 2}]}
    print_differences(answer)
    out, said = capsys.readouterr()
    assert "S2.size.min: 64 → 96" in out and "admitted: 9 → 7, 0 enter, 2 leave" in out
    assert "S2" in out and "S1" not in out and "a" * 12 in out and "a" * 13 not in out
    assert said == "not applied: clip (no weights)\n"
    print_differences(answer | {"stages": [still]})
    assert "size" not in capsys.readouterr().out.partition("admitted")[2]


def test_an_explanation_shows_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    stage = {"stage": "S1", "bucket": 64, "passed": False, "filter": "size", "score": 30.0, "threshold": 64.0}
    row = {"source_uri": "/p/[red].png", "sample_id": "5f", "outcome": "dropped", "stage_reached": "S1", "task": "t2i"}
    row |= {"filter": "size", "score": 30.0, "threshold": 64.0, "survivor": None, "survivor_uri": None, "width": 40}
    row |= {
        "height": 30,
        "caption": "",
        "stages": [stage, stage | {"passed": True}],
        "scores": {"a.b": 0.12345, "c": None},
    }
    print_explanation({"quarantine": [{"source_uri": "/p/x.png", "reason": "zero bytes"}], "rows": [row]})
    shown = capsys.readouterr().out
    assert "/p/[red].png" in shown and "quarantined: zero bytes" in shown and "(none)" in shown
    assert "dropped, reached S1 by size 30, threshold 64" in shown
    assert "S1 at 64: stopped by size (30, threshold 64)" in shown and "S1 at 64: passed" in shown
    assert shown.splitlines()[-1].strip() == "a: b 0.1235"
