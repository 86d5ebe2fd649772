"""The held-out suite after an erasure; `test_erase.py` erases from a whole workspace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.sources.ingest import ingest
from flywheel.core.files import read_json, write_bytes
from flywheel.core.workspace import Workspace
from flywheel.operate import erase_suite
from flywheel.operate.victims import find
from flywheel.signals import pinned
from flywheel.signals.suite import write_rows
from tests.curation.corpus import encoded, texture, write_folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A suite of the pool: a caption, an edit and a pair of picture 0, and a caption of picture 1."""
    workspace = Workspace(tmp_path / "w")
    files = {f"{n}.png": encoded(texture(n, 90, 90)) for n in range(2)}
    ingest(workspace, write_folder(tmp_path / "src", files, {f: f for f in files}))
    ids = {name: find(workspace, [name]).rows[0].sample_id for name in files}
    folder = workspace.suite.parent
    rows = []
    for name, kinds in (("0.png", ("photo", "edit")), ("1.png", ("photo",))):
        for kind in kinds:
            prompt = f"{kind}-{ids[name][:12]}"
            references = [f"references/{prompt}-0.png"] if kind == "edit" else []
            for reference in references:
                write_bytes(folder / reference, encoded(texture(7)))
            write_bytes(folder / "pictures" / f"{prompt}.png", encoded(texture(8)))
            rows.append({"prompt_id": prompt, "prompt": name, "task": "t2i", "references": references, "checks": []})
    write_rows(workspace.suite, rows)
    pinned.write_held_out(workspace, ids.values())
    pinned.pin(workspace)
    return workspace


def test_prompts_go_with_their_pictures_and_the_pin_says_why(workspace: Workspace) -> None:
    victims = find(workspace, ["0.png"])
    gone = erase_suite.prompts_of(workspace, victims)
    short = victims.rows[0].sample_id[:12]
    assert gone == [f"edit-{short}", f"photo-{short}"]
    journal = {"id": "e1", "by": "ada", "prompts": gone, "samples": {r.sample_id: "" for r in victims.rows}}
    journal |= {"images": list(victims.images), "looks": []}
    for _ in range(2):  # again, after a kill
        erase_suite.erase(workspace, journal)
        kept = pinned.load_own(workspace)
        assert len(kept) == 1 and short not in kept[0].prompt_id
        assert len(pinned.held_out(workspace).ids) == 1
        assert not [p for p in workspace.suite.parent.rglob("*.png") if short in p.name]
        (entry,) = read_json(workspace.path("suite.json"))["replaced"]
        assert entry["prompts"] == gone and len(entry["removed"]) == 3
        assert short not in json.dumps(read_json(workspace.held_out))


def test_a_workspace_without_a_suite_has_no_prompts(tmp_path: Path) -> None:
    empty = Workspace(tmp_path / "empty")
    assert erase_suite.prompts_of(empty, find(empty, ["a" * 64])) == []
