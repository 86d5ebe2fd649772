"""Scoring rules of public benchmarks, rewritten from their definitions: each judges one image by its score columns.

GenEval: every `include` clause holds and no `exclude` clause does. LongText-Bench: share of the wanted words (en) or
characters (zh) that are matched. CVTG-2K: word accuracy and normalised edit similarity. How a benchmark averages its
images is in `flywheel.signals.benchmarks`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Check = Mapping[str, Any]
Columns = Mapping[str, Any]
Judgement = tuple[float, float, dict[str, Any]]  # score, threshold, evidence

CONFIDENCE = 0.3  # GenEval: detections at or below it are ignored
COUNTING_CONFIDENCE = 0.9  # GenEval: the same, for prompts that ask for a number
MAX_OBJECTS = 16  # GenEval: most confident detections kept per class
POSITION_MARGIN = 0.1  # GenEval: share of both sizes by which centres may overlap
MATCHED_SHARE = 0.9  # [D] one wrong word in ten fails the picture; the benchmark itself only averages
_LONGTEXT = re.compile(r"[^\u4e00-\u9fa5a-zA-Z0-9\sàâäéèêëîïôöùûüçÀÂÄÉÈÊËÎÏÔÖÙÛÜÇ]")


def written(check: Check, columns: Columns) -> Judgement:
    """LongText-Bench's matched share of one picture; the evidence has both counts, which the benchmark sums."""
    language = check.get("language", "en")
    wanted, read = (longtext_units(t, language) for t in (" ".join(check["texts"]), columns["text"]))
    missing = wanted - read
    total = wanted.total()
    matched = total - missing.total()
    score = matched / total if total else 1.0
    evidence = {
        "expected": " ".join(check["texts"]),
        "seen": columns["text"],
        "matched": matched,
        "wanted": total,
        "missing": sorted(missing)[:20],
    }
    return score, check.get("min", MATCHED_SHARE), evidence


def longtext_units(text: str, language: str) -> Counter[str]:
    """Counts of the lower-case words (en) or characters (zh) of a text; punctuation does not count."""
    clean = _LONGTEXT.sub("", text)
    return Counter(clean.lower().split() if language == "en" else "".join(clean.split()))


def words(check: Check, columns: Columns) -> Judgement:
    """CVTG-2K's word accuracy of one picture; evidence: NED (1 − edit distance / longer length) of the full text."""
    from rapidfuzz.distance import Levenshtein

    wanted, read = (_plain_words(t) for t in (" ".join(check["texts"]), columns["text"]))
    total = len(wanted)
    matched = (Counter(wanted) & Counter(read)).total()
    evidence = {
        "expected": " ".join(check["texts"]),
        "seen": columns["text"],
        "matched": matched,
        "wanted": total,
        "ned": float(Levenshtein.normalized_similarity(" ".join(wanted), " ".join(read))),
    }
    return (matched / total if total else 1.0), check.get("min", MATCHED_SHARE), evidence


def _plain_words(text: str) -> list[str]:
    return ["".join(c for c in w if c.isalnum()) for w in text.lower().split() if any(c.isalnum() for c in w)]


def geneval(check: Check, columns: Columns) -> Judgement:
    """GenEval's binary verdict on detections `{class, score, box [x1, y1, x2, y2], color}`.

    `failed` in the evidence lists the failed clauses: object | count | color | position | exclude.
    """
    objects = _kept(columns["detections"], COUNTING_CONFIDENCE if check.get("tag") == "counting" else CONFIDENCE)
    failed: list[str] = []
    groups: list[Sequence[Mapping[str, Any]] | None] = []
    for clause in check["include"]:
        group = objects.get(clause["class"], [])[: clause["count"]]
        fault = _fault(clause, group, groups)
        groups.append(None if fault else group)
        if fault:
            failed.append(fault)
    for clause in check.get("exclude", ()):
        if len(objects.get(clause["class"], ())) >= clause["count"]:
            failed.append("exclude")
    evidence = {
        "expected": {k: check[k] for k in ("include", "exclude") if k in check},
        "seen": {name: len(group) for name, group in sorted(objects.items())},
        "failed": failed,
    }
    return float(not failed), 1.0, evidence


def _kept(detections: Sequence[Mapping[str, Any]], confidence: float) -> dict[str, list[Mapping[str, Any]]]:
    """Confident detections by class, most confident first."""
    objects: dict[str, list[Mapping[str, Any]]] = {}
    for d in sorted(detections, key=lambda d: -d["score"]):
        group = objects.setdefault(d["class"], []) if d["score"] > confidence else None
        if group is not None and len(group) < MAX_OBJECTS:
            group.append(d)
    return objects


def _fault(clause: Check, group: Sequence[Check], groups: Sequence[Sequence[Check] | None]) -> str | None:
    """The name of the fault if these detections do not satisfy the clause; `groups`: those of earlier clauses."""
    if len(group) < clause["count"]:
        return "count" if clause["count"] > 1 else "object"
    if "color" in clause and sum(d.get("color") == clause["color"] for d in group) < clause["count"]:
        return "color"
    if "position" in clause:
        relation, target = clause["position"]
        targets = groups[target]
        if targets is None:
            return "object"  # the object to be beside is missing
        if not all(relation in relations(d["box"], t["box"]) for d in group for t in targets):
            return "position"
    return None


def relations(box: Sequence[float], target: Sequence[float]) -> frozenset[str]:
    """Where `box` is relative to `target` (x1, y1, x2, y2): left of | right of | above | below; empty on overlap."""
    a, b = (np.asarray(x, dtype=float).reshape(2, 2) for x in (box, target))
    offset = a.mean(0) - b.mean(0)
    slack = POSITION_MARGIN * (np.abs(a[1] - a[0]) + np.abs(b[1] - b[0]))
    beyond = np.maximum(np.abs(offset) - slack, 0) * np.sign(offset)
    if np.all(np.abs(beyond) < 1e-3):
        return frozenset()
    x, y = beyond / np.linalg.norm(offset)
    names = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return frozenset(name for name, holds in names.items() if holds)
