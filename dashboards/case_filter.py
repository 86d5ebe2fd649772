"""Which cases to list, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dashboards.shapes import shape

_FAILED_ON_CHECKPOINT = """
SELECT prompt_id, capability FROM (
    SELECT prompt_id, capability, image, bool_and(passed) AS passed
    FROM signals WHERE checkpoint = ? AND passed IS NOT NULL GROUP BY ALL
) GROUP BY ALL HAVING avg(passed::INT) <= 0.5
"""
OPEN = "open"  # in place of a status
NEWEST = "newest round"
ORDERS = {
    NEWEST: "round DESC, capability, case_id",
    "oldest round": "round, capability, case_id",
    **{name: f"{name} NULLS LAST, round DESC, case_id" for name in ("capability", "track", "status", "prompt")},
}
_IS_OPEN = "coalesce(status, '') NOT IN ('closed', 'dismissed')"


@dataclass(frozen=True)
class CaseFilter:
    """Which cases to list; an empty value does not filter.

    checkpoint: cases that this checkpoint fails; status: `open` stands for all that are neither closed nor dismissed.
    within: a part of the map, as `shapes.shape` reads it, in which their prompts lie. text: in the prompt, in any
    letter case, or the start of the id. sort: a key of `ORDERS`.
    """

    capability: str = ""
    track: str = ""
    status: str = ""
    round: int | None = None
    checkpoint: str = ""
    within: str = ""
    text: str = ""
    sort: str = ""

    @property
    def order(self) -> str:
        """Columns to sort by."""
        return ORDERS[self.sort or NEWEST]

    def where(self) -> tuple[str, list[Any]]:
        """SQL condition and its parameters."""
        wanted = {
            "capability = ?": self.capability,
            "coalesce(track, 'unrouted') = ?": self.track,
            "status = ?": "" if self.status == OPEN else self.status,
            f"(prompt_id, capability) IN ({_FAILED_ON_CHECKPOINT})": self.checkpoint,
        }
        parts: list[tuple[str, str | int]] = [(condition, value) for condition, value in wanted.items() if value]
        if self.round is not None:
            parts.append(("round = ?", self.round))
        conditions = [p for p, _ in parts] + [_IS_OPEN] * (self.status == OPEN)
        values = [v for _, v in parts]
        if self.text:
            conditions.append("(contains(lower(prompt), lower(?)) OR starts_with(case_id, ?))")
            values += [self.text, self.text]
        if self.within:
            inside = shape(self.within).condition()
            conditions.append(f"case_id IN (SELECT case_id FROM map_points WHERE case_id IS NOT NULL AND {inside})")
        return " AND ".join(conditions) or "true", values
