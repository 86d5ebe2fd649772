"""Suite files: JSON Lines end at a newline only."""

from __future__ import annotations

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


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400"])
def test_a_check_cannot_ask_for_what_is_no_number(tmp_path: Path, number: str):
    path = tmp_path / "suite.jsonl"
    row = f'"prompt_id": "a", "prompt": "two", "task": "t2i", "checks": [{{"verifier": "count", "count": {number}}}]'
    path.write_text(f"{{{row}}}\n")
    with pytest.raises(UsageError, match=r"suite.jsonl, line 1: .*checks\.0\.count is .*: give a finite number"):
        load_suite(path)
