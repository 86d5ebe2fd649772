"""Verdicts of verifiers and of people, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace


def judged(root: Path, passes: Mapping[str, tuple[int, int]], **changes: object) -> Workspace:
    """A round's candidate in which each verifier passed and failed so many pictures: {verifier: (passed, failed)}."""
    workspace = Workspace(root)
    rows = [
        {"signal_id": f"{name}-{n}", "round": 1, "arm": "candidate", "kind": "evaluation", "prompt_id": f"p{n}"}
        | {"checkpoint": "checkpoints/1", "prompt": f"prompt {n}", "verifier": name, "capability": f"{name}s"}
        | {"passed": n < good, "image": f"samples/1/p{n}.png", "score": float(n < good), "threshold": 0.5}
        | {"evidence": json.dumps({"expected": "A", "seen": f"seen {n < good}"})}
        for name, (good, bad) in passes.items()
        for n in range(good + bad)
    ]
    Ledger(workspace, "signals").append([row | changes for row in rows], key="s")
    return workspace


def blind(workspace: Workspace, verifier: str, *, passes: tuple[int, int], fails: tuple[int, int]) -> None:
    """People found so many of its passes (good, bad) and of its fails (good, bad)."""
    kinds = [(True, True, passes[0]), (True, False, passes[1]), (False, True, fails[0]), (False, False, fails[1])]
    rows = [
        {"verdict_id": f"{verifier}-{machine}-{found}-{n}", "signal_id": f"{machine}-{found}-{n}", "image": "i.png"}
        | {"verifier": verifier, "machine": machine, "passed": found, "blind": True, "reviewer": "ada", "why": ""}
        for machine, found, count in kinds
        for n in range(count)
    ]
    Ledger(workspace, "human_verdicts").append(rows, key=f"blind/{verifier}")
