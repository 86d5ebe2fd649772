"""Failure rate per capability over rounds, with intervals, as a chart's data and as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dashboards.rounds import Rate, Round

Trend = dict[int, Rate]  # round → the candidate's failure rate


def trends(rounds: Sequence[Round]) -> dict[str, Trend]:
    """By capability, that with most failures in the last round first."""
    found: dict[str, Trend] = {}
    for round_ in rounds:
        for line in round_.lines:
            if "candidate" in line.rates:
                found.setdefault(line.capability, {})[round_.number] = line.rates["candidate"]
    return dict(sorted(found.items(), key=lambda item: (-item[1][max(item[1])].value, item[0])))


def chart(found: dict[str, Trend]) -> str:
    """JSON for `charts.js`: {rounds, panels: [{name, rates: [[value, low, high] | null per round]}]}."""
    numbers = sorted({n for trend in found.values() for n in trend})
    panels = [{"name": name.replace("_", " "), "rates": [_triple(trend.get(n)) for n in numbers]}
              for name, trend in found.items()]  # fmt: skip
    return json.dumps({"kind": "trends", "rounds": numbers, "panels": panels})


def _triple(rate: Rate | None) -> list[Any] | None:
    return None if rate is None else [round(v, 4) for v in (rate.value, rate.low, rate.high)]
