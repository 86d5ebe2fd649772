"""Scoring rules of public benchmarks for one image, restated from their definitions.

GenEval: every `include` clause holds and no `exclude` clause does. LongText-Bench: share of the requested words (en) or
characters (zh) that match. CVTG-2K: word accuracy and normalised edit similarity. `flywheel.signals.benchmarks`
averages over images.
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

CONFIDENCE = 0.3  # GenEval: detections at or below it are dropped
COUNTING_CONFIDENCE = 0.9  # GenEval: the same for counting prompts
MAX_OBJECTS = 16  # GenEval: number of most confident detections kept per class
POSITION_MARGIN = 0.1  # GenEval: tolerance of relations, as a share of the sum of both box sizes
MATCHED_SHARE = 0.9  # [D] a picture with more than one wrong word in ten fails; the benchmark itself only averages
_LONGTEXT = re.compile(r"[^\u4e00-\u9fa5a-zA-Z0-9\sàâäéèêëîïôöùûüçÀÂÄÉÈÊËÎÏÔÖÙÛÜÇ]")


def written(check: Check, columns: Columns) -> Judgement | None:
    """LongText-Bench: share of matched words or characters; the evidence holds both counts for the benchmark's sum.

    None where the benchmark's rule leaves nothing of the wanted text: other scripts than its two, punctuation.
    """
    language = check.get("language", "en")
    wanted, read = (longtext_units(t, language) for t in (" ".join(check["texts"]), columns["text"]))
    missing = wanted - read
    total = wanted.total()
    if not total:
        return None
    matched = total - missing.total()
    evidence = {
        "expected": " ".join(check["texts"]),
        "seen": columns["text"],
        "matched": matched,
        "wanted": total,
        "missing": sorted(missing)[:20],
    }
    return matched / total, check.get("min", MATCHED_SHARE), evidence


def longtext_units(text: str, language: str) -> Counter[str]:
    """Number of each lower-cased word (en) or character (zh) of a text, without punctuation."""
    clean = _LONGTEXT.sub("", text)
    return Counter(clean.lower().split() if language == "en" else "".join(clean.split()))


def words(check: Check, columns: Columns) -> Judgement | None:
    """CVTG-2K: word accuracy; the evidence holds the NED (1 − edit distance / longer length) of the full text.

    None where the wanted text has no word, or is in a script that the text engine does not know.
    """
    from rapidfuzz.distance import Levenshtein

    from curation.scorers.language import readable

    wanted, read = (_plain_words(t) for t in (" ".join(check["texts"]), columns["text"]))
    total = len(wanted)
    if not total or not readable(" ".join(wanted)):
        return None
    matched = (Counter(wanted) & Counter(read)).total()
    evidence = {
        "expected": " ".join(check["texts"]),
        "seen": columns["text"],
        "matched": matched,
        "wanted": total,
        "ned": float(Levenshtein.normalized_similarity(" ".join(wanted), " ".join(read))),
    }
    return matched / total, check.get("min", MATCHED_SHARE), evidence


def _plain_words(text: str) -> list[str]:
    return ["".join(c for c in w if c.isalnum()) for w in text.lower().split() if any(c.isalnum() for c in w)]


def geneval(check: Check, columns: Columns) -> Judgement | None:
    """GenEval: binary verdict on detections `{class, score, box [x1, y1, x2, y2], color}`; None without a clause.

    `failed` in the evidence lists the kinds of failed clauses: object | count | color | position | exclude.
    """
    if not check["include"] and not check.get("exclude"):
        return None
    objects = _kept(columns["detections"], COUNTING_CONFIDENCE if check.get("tag") == "counting" else CONFIDENCE)
    failed: list[str] = []
    groups: list[Sequence[Mapping[str, Any]] | None] = []
    for clause in check["include"]:
        matches = objects.get(clause["class"], [])[: clause["count"]]
        fault = _fault(clause, matches, groups)
        groups.append(None if fault else matches)
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


def _fault(clause: Check, matches: Sequence[Check], groups: Sequence[Sequence[Check] | None]) -> str | None:
    """What fails in an `include` clause; None if it holds. `groups`: matches of the clauses before; None: failed."""
    if len(matches) < clause["count"]:
        return "count" if clause["count"] > 1 else "object"
    if "color" in clause and sum(d.get("color") == clause["color"] for d in matches) < clause["count"]:
        return "color"
    if "position" in clause:
        relation, target = clause["position"]
        targets = groups[target]
        if targets is None:
            return "object"  # the object to relate to is missing
        if not all(relation in relations(d["box"], t["box"]) for d in matches for t in targets):
            return "position"
    return None


def relations(box: Sequence[float], target: Sequence[float]) -> frozenset[str]:
    """Relations of `box` to `target` (x1, y1, x2, y2): left of | right of | above | below; empty if they overlap."""
    a, b = (np.asarray(x, dtype=float).reshape(2, 2) for x in (box, target))
    offset = a.mean(0) - b.mean(0)
    slack = POSITION_MARGIN * (np.abs(a[1] - a[0]) + np.abs(b[1] - b[0]))
    beyond = np.maximum(np.abs(offset) - slack, 0) * np.sign(offset)
    if np.all(np.abs(beyond) < 1e-3):
        return frozenset()
    x, y = beyond / np.linalg.norm(offset)
    names = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return frozenset(name for name, holds in names.items() if holds)
