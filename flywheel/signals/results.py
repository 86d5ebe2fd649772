"""From signals to results: the share of pictures that pass, per prompt and capability, and failure rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flywheel.core.lens import connect
from flywheel.core.workspace import Workspace

Results = Mapping[tuple[str, str], float]  # (prompt_id, capability) → share of its pictures that pass, in [0, 1]


def results(signals: Iterable[Mapping[str, Any]], round_: int, arm: str) -> Results:
    """A picture passes if all of the capability's checks on it pass; checks that were not applied do not count."""
    pictures: dict[tuple[str, str], dict[str | None, bool]] = {}
    for s in signals:
        if s["kind"] == "evaluation" and s["round"] == round_ and s["arm"] == arm and s["passed"] is not None:
            drawn = pictures.setdefault((s["prompt_id"], s["capability"]), {})
            drawn[s["image"]] = drawn.get(s["image"], True) and s["passed"]
    return {pair: sum(drawn.values()) / len(drawn) for pair, drawn in pictures.items()}


def passes(share: float) -> bool:
    """Whether a prompt of which this share of pictures passes counts as passed: more than half must."""
    return share > 0.5


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
    """Share of each capability's pictures that fail, in [0, 1]; every prompt weighs the same."""
    totals: dict[str, list[float]] = {}
    for (_, capability), share in results_.items():
        totals.setdefault(capability, []).append(1 - share)
    return {c: sum(v) / len(v) for c, v in sorted(totals.items())}
