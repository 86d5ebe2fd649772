"""Failure rate per capability over rounds, with intervals, for a chart and its table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dashboards.rounds import Rate, Round

Trend = dict[int, Rate]  # round → the candidate's failure rate


def trends(rounds: Sequence[Round]) -> dict[str, Trend]:
    """Trend of every capability, highest failure rate in its last round first."""
    by_capability: dict[str, Trend] = {}
    for round_ in rounds:
        for c in round_.capabilities:
            if "candidate" in c.rates:
                by_capability.setdefault(c.capability, {})[round_.number] = c.rates["candidate"]
    return dict(sorted(by_capability.items(), key=lambda item: (-item[1][max(item[1])].value, item[0])))


def chart(by_capability: dict[str, Trend]) -> str:
    """Chart data for `charts.js`, as JSON: {rounds, panels: [{name, rates: [[value, low, high] | null per round]}]}."""
    numbers = sorted({n for trend in by_capability.values() for n in trend})
    panels = [{"name": name.replace("_", " "), "rates": [_triple(trend.get(n)) for n in numbers]}
              for name, trend in by_capability.items()]  # fmt: skip
    return json.dumps({"kind": "trends", "rounds": numbers, "panels": panels})


def _triple(rate: Rate | None) -> list[Any] | None:
    return None if rate is None else [round(v, 4) for v in (rate.value, rate.low, rate.high)]
