"""From signals to results: pass or fail per prompt and capability, and failure rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flywheel.core.lens import connect
from flywheel.core.workspace import Workspace

Results = Mapping[tuple[str, str], bool]  # (prompt_id, capability) → passed


def results(signals: Iterable[Mapping[str, Any]], round_: int, arm: str) -> Results:
    """A capability passes on a prompt if all its checks there pass; checks that were not applied do not count."""
    out: dict[tuple[str, str], bool] = {}
    for s in signals:
        if s["kind"] == "evaluation" and s["round"] == round_ and s["arm"] == arm and s["passed"] is not None:
            pair = (s["prompt_id"], s["capability"])
            out[pair] = out.get(pair, True) and s["passed"]
    return out


def load_signals(workspace: Workspace, round_: int, arm: str) -> list[dict[str, Any]]:
    """The evaluation signals of one arm of a round, oldest first; no other signals are read into memory."""
    con = connect(workspace, ["signals"])
    try:
        signals = con.sql(
            """SELECT * EXCLUDE ("at") FROM signals WHERE kind = 'evaluation' AND round = $round AND arm = $arm
            ORDER BY "at" """,
            params={"round": round_, "arm": arm},
        )
        return signals.to_arrow_table().to_pylist()
    finally:
        con.close()


def load_results(workspace: Workspace, round_: int, arm: str) -> Results:
    """`results` of one arm of a round, from the ledger."""
    return results(load_signals(workspace, round_, arm), round_, arm)


def failure_rates(results_: Results) -> dict[str, float]:
    """Share of each capability's prompts that fail, in [0, 1]."""
    totals: dict[str, list[int]] = {}
    for (_, capability), passed in results_.items():
        totals.setdefault(capability, []).append(0 if passed else 1)
    return {c: sum(v) / len(v) for c, v in sorted(totals.items())}
