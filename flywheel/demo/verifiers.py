"""Verifiers of the content of cards: the demo's entry points of the group `flywheel.verifiers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curation.verify.checks import Check, Columns, Judgement, Verifier

ANCHORS = {"left": (0.25, 0.5), "right": (0.75, 0.5), "top": (0.5, 0.25), "bottom": (0.5, 0.75), "centre": (0.5, 0.5)}


def _object(check: Check, columns: Columns) -> Judgement:
    shapes = [o["shape"] for o in columns["objects"]]
    return float(check["shape"] in shapes), 1.0, {"expected": check["shape"], "seen": shapes}


def _color(check: Check, columns: Columns) -> Judgement:
    subject = _subject(check, columns)
    color = subject["color"] if subject else None
    return float(color == check["color"]), 1.0, {"expected": check["color"], "seen": color}


def _background(check: Check, columns: Columns) -> Judgement:
    ground = columns["background"]
    return float(ground == check["color"]), 1.0, {"expected": check["color"], "seen": ground}


def _position(check: Check, columns: Columns) -> Judgement:
    subject = _subject(check, columns)
    place = nearest_anchor(subject["x"], subject["y"]) if subject else None
    evidence = {"expected": check["position"], "seen": place}
    if subject:
        evidence |= {"x": subject["x"], "y": subject["y"]}
    return float(place == check["position"]), 1.0, evidence


def _count(check: Check, columns: Columns) -> Judgement:
    objects, expected = columns["objects"], check["count"]
    count = sum(all(o[k] == check[k] for k in ("shape", "color") if k in check) for o in objects)
    score = max(0.0, 1 - abs(count - expected) / max(1, expected))
    return score, 1.0, {"expected": expected, "seen": count, "shapes": [o["shape"] for o in objects]}


def _subject(check: Check, columns: Columns) -> Mapping[str, Any] | None:
    """The largest object of the expected shape, or else of any shape: a wrong shape alone fails no other check."""
    objects = columns["objects"]
    return next((o for o in objects if o["shape"] == check.get("shape")), objects[0] if objects else None)


def nearest_anchor(x: float, y: float) -> str:
    """Name of the place that is nearest to a point, given in shares of width and height."""
    return min(ANCHORS, key=lambda name: (ANCHORS[name][0] - x) ** 2 + (ANCHORS[name][1] - y) ** 2)


OBJECT = Verifier("objects", ("shape",), _object)
COLOR = Verifier("objects", ("color",), _color)
BACKGROUND = Verifier("objects", ("color",), _background)
COUNT = Verifier("objects", ("count",), _count)
POSITION = Verifier("objects", ("position",), _position, {"position": tuple(ANCHORS)})
