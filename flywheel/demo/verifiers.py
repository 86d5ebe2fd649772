"""Verifiers of what a card shows: entry points of the group `flywheel.verifiers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curation.verify.checks import Check, Columns, Judgement, Verifier

ANCHORS = {"left": (0.25, 0.5), "right": (0.75, 0.5), "top": (0.5, 0.25), "bottom": (0.5, 0.75), "centre": (0.5, 0.5)}


def _object(check: Check, seen: Columns) -> Judgement:
    found = seen["objects"]
    score = float(any(o["shape"] == check["shape"] for o in found))
    return score, 1.0, {"expected": check["shape"], "seen": [o["shape"] for o in found]}


def _color(check: Check, seen: Columns) -> Judgement:
    largest = _subject(check, seen)
    score = float(bool(largest) and largest["color"] == check["color"])
    return score, 1.0, {"expected": check["color"], "seen": largest and largest["color"]}


def _position(check: Check, seen: Columns) -> Judgement:
    largest = _subject(check, seen)
    where = nearest_anchor(largest["x"], largest["y"]) if largest else None
    evidence = {"expected": check["position"], "seen": where}
    if largest:
        evidence |= {"x": largest["x"], "y": largest["y"]}
    return float(where == check["position"]), 1.0, evidence


def _count(check: Check, seen: Columns) -> Judgement:
    found = [o for o in seen["objects"] if all(o[k] == check[k] for k in ("shape", "color") if k in check)]
    wanted = check["count"]
    score = max(0.0, 1 - abs(len(found) - wanted) / max(1, wanted))
    evidence = {"expected": wanted, "seen": len(found), "shapes": [o["shape"] for o in seen["objects"]]}
    return score, 1.0, evidence


def _subject(check: Check, seen: Columns) -> Mapping[str, Any] | None:
    """The largest mark of the asked shape, or else of all: a wrong shape does not decide on colour and place."""
    found = seen["objects"]
    return next((o for o in found if o["shape"] == check.get("shape")), found[0] if found else None)


def nearest_anchor(x: float, y: float) -> str:
    """Name of the place nearest to a point in shares of width and height."""
    return min(ANCHORS, key=lambda name: (ANCHORS[name][0] - x) ** 2 + (ANCHORS[name][1] - y) ** 2)


OBJECT = Verifier("objects", ("shape",), _object)
COLOR = Verifier("objects", ("color",), _color)
COUNT = Verifier("objects", ("count",), _count)
POSITION = Verifier("objects", ("position",), _position, {"position": tuple(ANCHORS)})
