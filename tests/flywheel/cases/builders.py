"""What the tests of cases build: signals, and cases as their events leave them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flywheel.cases.events import Case, detect, load_cases
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace


def signal(prompt: str, capability: str, passed: bool | None, **changes: object) -> dict:
    """An evaluation signal of round 1's candidate."""
    row = {"round": 1, "arm": "candidate", "kind": "evaluation", "prompt_id": prompt, "prompt": prompt}
    row |= {"capability": capability, "verifier": capability, "passed": passed, "score": 0.0, "threshold": 1.0}
    row |= {"evidence": "{}", "image": "i.png", "signal_id": "s"}
    return row | changes


def detected(signals: Iterable[Mapping[str, Any]], *, track: str | None = None) -> dict[str, Case]:
    """The cases that round 1 detects in these signals, by id, as if routed to `track`."""
    columns = ("case_id", "capability", "prompt_id", "prompt")
    cases = [{k: e[k] for k in columns} for e in detect(signals, {}, 1)]
    return {c["case_id"]: Case(**c, round=1, track=track, status="routed" if track else "detected") for c in cases}


def folded(folder: Path, *appends: Iterable[Mapping[str, Any]]) -> dict[str, Case]:
    """The cases after these events, each group of which is recorded at one moment."""
    workspace = Workspace(folder / f"folded-{len(list(folder.iterdir()))}")
    for number, events in enumerate(appends):
        Ledger(workspace, "case_events").append(events, key=str(number))
    return load_cases(workspace)
