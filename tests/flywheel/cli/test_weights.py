"""What the verbs say about weights; fetching is in `tests/flywheel/core/test_weights.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel.core.weights import catalogue
from tests.flywheel.cli.command import flywheel, wrong


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLYWHEEL_WEIGHTS", str(tmp_path))
    return tmp_path


def test_the_list_has_a_licence_a_size_and_a_place_for_each(folder: Path) -> None:
    rows = json.loads(flywheel("weights", "list", "--json").stdout)
    assert [r["name"] for r in rows] == list(catalogue())
    assert all(r["licence"] and r["MB"] > 0 and not r["here"] and Path(r["path"]).is_relative_to(folder) for r in rows)
    assert "sha256" not in flywheel("weights", "list").stdout


def test_nothing_to_verify_says_what_to_do_and_what_is_wrong_fails() -> None:
    nothing = flywheel("weights", "verify")
    assert (nothing.returncode, nothing.stderr) == (0, "no weights are here: run `flywheel weights pull`\n")
    name, entry = next(iter(catalogue().items()))
    entry.path.parent.mkdir(parents=True)
    entry.path.write_bytes(b"something else")
    changed = flywheel("weights", "verify", "--json")
    assert changed.returncode == 1 and "delete it, then run" in changed.stderr
    assert json.loads(changed.stdout) == [{"name": name, "path": str(entry.path), "intact": False}]


def test_unknown_and_unreachable_weights() -> None:
    assert "unknown weights 'nothing': choose from" in wrong("weights", "pull", "nothing")
    assert "not reachable" in wrong("weights", "pull", next(iter(catalogue())))
