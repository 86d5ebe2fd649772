"""Suite files: JSON Lines end at a newline only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.signals.suite import copy_suite, load_suite, write_rows


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b", "\x0c"])
def test_a_prompt_may_hold_any_separator(tmp_path: Path, mark: str):
    row = {"prompt_id": "p", "prompt": f"a red{mark}circle", "task": "t2i", "references": [], "checks": []}
    path = write_rows(tmp_path / "suite.jsonl", [row, row | {"prompt_id": "q"}])
    for suite in (path, copy_suite(path, tmp_path / "copy" / "suite.jsonl")):
        assert [p.text for p in load_suite(suite)] == [row["prompt"]] * 2


def test_blank_lines_and_a_byte_order_mark_are_no_prompts(tmp_path: Path):
    row = json.dumps({"prompt_id": "p", "prompt": "a red disc", "task": "t2i", "checks": []})
    other = row.replace('"p"', '"q"')
    (tmp_path / "suite.jsonl").write_text(f"\ufeff\r\n{row}\r\n\r\n{other}\r\n\r\n", "utf-8")
    for suite in (tmp_path / "suite.jsonl", copy_suite(tmp_path / "suite.jsonl", tmp_path / "copy" / "suite.jsonl")):
        assert [p.prompt_id for p in load_suite(suite)] == ["p", "q"]


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400"])
def test_a_check_cannot_ask_for_what_is_no_number(tmp_path: Path, number: str):
    path = tmp_path / "suite.jsonl"
    row = f'"prompt_id": "a", "prompt": "two", "task": "t2i", "checks": [{{"verifier": "count", "count": {number}}}]'
    path.write_text(f"{{{row}}}\n")
    with pytest.raises(UsageError, match=r"suite.jsonl, line 1: .*checks\.0\.count is .*: give a finite number"):
        load_suite(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt": "half \ud800"}, "surrogates not allowed"),
        ({"prompt": 5}, "prompt is 5: give a text"),
        ({"prompt_id": 5}, "prompt_id is 5: give a text"),
        ({"prompt_id": " "}, "prompt_id is empty"),
        ({"task": "edit"}, "task is 'edit': give t2i or ti2i"),
        ({"references": "a.png"}, "references are not a list of paths"),
        ({"checks": None}, "checks are not a list of objects"),
        ({"checks": ["text"]}, "checks are not a list of objects"),
        ({"checks": [{"verifier": ["text"], "capability": "x"}]}, "each check needs a verifier and a capability"),
        ({"checks": [{"verifier": "text", "text": "hi"}]}, "each check needs a verifier and a capability"),
    ],
    ids=str,
)
def test_a_row_of_another_form_is_named_with_its_line(tmp_path: Path, change: dict, told: str):
    row = {"prompt_id": "p", "prompt": "a red disc", "task": "t2i", "checks": []}
    path = tmp_path / "suite.jsonl"
    path.write_text(f"{json.dumps(row)}\n{json.dumps(row | {'prompt_id': 'q'} | change)}\n")
    with pytest.raises(UsageError, match=f"suite.jsonl, line 2: not a suite prompt .*{told}"):
        load_suite(path)
