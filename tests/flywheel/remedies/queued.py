"""What the review queue is given."""

from __future__ import annotations


def row(n: int, priority: float = 0.5) -> dict:
    return {
        "capability": "count",
        "sample_id": f"{n:064x}",
        "caption": f"caption {n}",
        "priority": priority,
        "evidence": {"recipe": "retrieved"},
    }
