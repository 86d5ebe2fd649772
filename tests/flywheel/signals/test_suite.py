"""Suite files: JSON Lines end at a newline only."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.signals.suite import copy_suite, load_suite, write_rows


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b", "\x0c"])
def test_a_prompt_may_hold_any_separator(tmp_path: Path, mark: str):
    row = {"prompt_id": "p", "prompt": f"a red{mark}circle", "task": "t2i", "references": [], "checks": []}
    path = write_rows(tmp_path / "suite.jsonl", [row, row | {"prompt_id": "q"}])
    for suite in (path, copy_suite(path, tmp_path / "copy" / "suite.jsonl")):
        assert [p.text for p in load_suite(suite)] == [row["prompt"]] * 2
