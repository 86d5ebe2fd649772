"""The pinned suite: a missing or changed file stops the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.files import write_json
from flywheel.core.workspace import Workspace
from flywheel.demo.photographs import crops
from flywheel.signals import pinned
from flywheel.signals.nulls import encode
from flywheel.signals.suite import write_rows


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    opened = Workspace(tmp_path / "w")
    reference = encode(next(crops(1, seed="0"))[0])
    (opened.suite.parent / "references").mkdir(parents=True)
    opened.suite.with_name("references").joinpath("r.png").write_bytes(reference)
    pinned.write_held_out(opened, {"b", "a"}, [reference])
    row = {"prompt_id": "p", "prompt": "x", "task": "ti2i", "references": ["references/r.png"], "checks": []}
    write_rows(opened.suite, [row])
    pinned.pin(opened)
    return opened


def test_what_is_held_out_comes_back(workspace: Workspace):
    held = pinned.held_out(workspace)
    assert held.ids == {"a", "b"} and len(held.looks) == 1
    assert [p.prompt_id for p in pinned.load_own(workspace)] == ["p"]


@pytest.mark.parametrize("name", ["held_out.json", "suite.jsonl", "references/r.png"])
def test_a_lost_or_changed_file_stops_the_command(workspace: Workspace, name: str):
    path = workspace.suite.parent / name
    content = path.read_bytes()
    path.write_bytes(content + b"\n")
    with pytest.raises(UsageError, match=f"{name} is not what it was"):
        pinned.held_out(workspace)
    path.unlink()
    for read in (pinned.held_out, pinned.load_own, lambda w: pinned.load_any(w.suite)):
        with pytest.raises(UsageError, match="restore it|pass a suite"):
            read(workspace)
    path.write_bytes(content)
    pinned.require_unchanged(workspace)


def test_a_pinned_suite_is_never_pinned_again(workspace: Workspace):
    workspace.held_out.unlink()
    pinned.pin(workspace)
    with pytest.raises(UsageError, match="held_out.json is missing"):
        pinned.require_unchanged(workspace)


def test_a_lost_pin_stops_the_command_once_a_round_rests_on_it(workspace: Workspace):
    record = workspace.path("suite.json")
    content = record.read_bytes()
    record.unlink()
    assert not pinned.is_pinned(workspace)  # of a first run that was killed before the pin appeared
    write_json(workspace.round(1).plan, {})
    for read in (pinned.is_pinned, pinned.pin, pinned.held_out, pinned.load_own):
        with pytest.raises(UsageError, match="suite.json is missing: restore it"):
            read(workspace)
    record.write_bytes(content)
    assert pinned.is_pinned(workspace)


def test_rounds_of_a_version_without_pins_are_pinned_later(tmp_path: Path):
    opened = Workspace(tmp_path / "w")
    write_json(opened.round(1).plan, {})
    assert not pinned.is_pinned(opened)
    pinned.pin(opened)
    assert pinned.is_pinned(opened)


def test_the_list_of_an_earlier_version_is_read(tmp_path: Path):
    opened = Workspace(tmp_path / "w")
    assert not pinned.held_out(opened).pictures and pinned.load_own(opened) == []
    write_json(opened.held_out, ["a"])
    assert pinned.held_out(opened).ids == {"a"}
