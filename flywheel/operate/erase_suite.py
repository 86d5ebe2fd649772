"""Erase pictures from the held-out suite: prompts that show them go, and the suite is pinned anew, with a record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curation.decide.judging import HeldOut, Look
from flywheel.core.files import discard, file_digest, read_json, text_lines, write_bytes, write_json
from flywheel.core.workspace import Workspace
from flywheel.operate.victims import Victims, alike, look_of, looks_of
from flywheel.signals import pinned
from flywheel.signals.drawing import picture_name
from flywheel.signals.suite import Prompt, load_suite

_SHORT = 12  # first characters of a sample id that end the id of a prompt which was made from it


def prompts_of(workspace: Workspace, victims: Victims) -> list[str]:
    """Ids of the suite's prompts that were made from one of the pictures, or show one that looks like it."""
    if not (prompts := _prompts(workspace)):
        return []
    made = {r.sample_id[:_SHORT] for r in victims.rows}
    known = list(looks_of(workspace, victims).values())
    found = []
    for prompt in prompts:
        files = [*prompt.references, _true_picture(workspace, prompt.prompt_id)]
        shown = [p.read_bytes() for p in files if p.is_file()] if known else []
        if prompt.prompt_id.rpartition("-")[2] in made or any(
            alike(look, other) for look in look_of(shown) if look for other in known
        ):
            found.append(prompt.prompt_id)
    return sorted(found)


def erase(workspace: Workspace, journal: Mapping[str, Any]) -> None:
    """Remove the journal's prompts with their pictures, everything drawn for them, and the held-out ids and looks."""
    gone = set(journal["prompts"])
    forget(workspace.held_out, journal)
    if gone:
        _drop_prompts(workspace, gone)
    if gone := gone | set(journal.get("played_prompts", ())):
        for folder in ("samples", "probes"):
            for path in workspace.path(folder).rglob("*.png"):
                named = {path.name, *path.relative_to(workspace.root).parts}
                if path.name == "grid.png" or any({picture_name(p), p} & named for p in gone):
                    discard(path)
    if pinned.is_pinned(workspace):
        _pin_again(workspace, journal)


def forget(path: Path, journal: Mapping[str, Any]) -> None:
    """Remove erased pictures from a list of what is held out."""
    if not path.exists():
        return
    record = read_json(path)
    whole = HeldOut(frozenset(record)) if isinstance(record, list) else HeldOut.from_record(record)
    erased = [Look(phash, bytes.fromhex(thumbnail)) for phash, thumbnail in journal["looks"]]
    looks = frozenset(x for x in whole.looks if not any(alike(x, other) for other in erased))
    ids = whole.ids - set(journal["samples"]) - set(journal["images"])
    if (ids, looks) != (whole.ids, whole.looks):
        write_json(path, HeldOut(ids, whole.prompts, looks).record())


def _prompts(workspace: Workspace) -> list[Prompt]:
    files = [workspace.suite, workspace.suite.with_name("hidden.jsonl")]
    return [p for path in files if path.exists() for p in load_suite(path)]


def _true_picture(workspace: Workspace, prompt_id: str) -> Path:
    return workspace.suite.parent / "pictures" / f"{prompt_id}.png"


def _drop_prompts(workspace: Workspace, gone: set[str]) -> None:
    files = [p for p in (workspace.suite, workspace.suite.with_name("hidden.jsonl")) if p.exists()]
    rows = [json.loads(line) for path in files for line in text_lines(path)]
    kept = {r for row in rows if row["prompt_id"] not in gone for r in row.get("references", ())}
    for row in (r for r in rows if r["prompt_id"] in gone):
        paths = [workspace.suite.parent / r for r in row.get("references", ()) if r not in kept]
        for path in (*paths, _true_picture(workspace, row["prompt_id"])):
            discard(path)
    for path in files:
        lines = [line for line in text_lines(path) if json.loads(line)["prompt_id"] not in gone]
        write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
    listed = workspace.suite.with_name("hidden.json")
    if listed.exists():
        write_json(listed, [i for i in read_json(listed) if i not in gone])


def _pin_again(workspace: Workspace, journal: Mapping[str, Any]) -> None:
    """Pin the files as they are now, and record which erasure changed them."""
    path, folder = workspace.path("suite.json"), workspace.suite.parent
    before = read_json(path)
    files = {n: file_digest(folder / n) for n in before["files"] if (folder / n).is_file()}
    if files == before["files"]:
        return
    changed = {n: sha256 for n, sha256 in before["files"].items() if n in files and files[n] != sha256}
    removed = sorted(before["files"].keys() - files.keys())
    entry = {"erasure": journal["id"], "by": journal["by"], "prompts": journal["prompts"]}
    entry |= {"removed": removed, "before": changed}
    write_json(path, {"files": files, "replaced": [*before.get("replaced", []), entry]})
