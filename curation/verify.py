"""Does an image show what was asked for? Checks are data, judged on the columns of the scorers that curation uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curation import benchmark_rules
from flywheel.scorer import Item, Scorer
from flywheel.workspace import UsageError

Check = Mapping[str, Any]
Columns = Mapping[str, Any]  # "scorer.column" → value
Judgement = tuple[float, float, dict[str, Any]]  # score, threshold, evidence

TEXT_SIMILARITY = 0.85  # one wrong letter in six fails; up to six letters that means every letter
IDENTITY_SIMILARITY = 0.75  # between the mascot after blur (0.90) and a plain disc of its colour (0.65)
UNCHANGED_SIMILARITY = 0.8
MAX_CHANGED_AREA = 0.6
ANCHORS = {"left": (0.25, 0.5), "right": (0.75, 0.5), "top": (0.5, 0.25), "bottom": (0.5, 0.75), "centre": (0.5, 0.5)}


@dataclass(frozen=True)
class Outcome:
    """One check on one image. `passed` is None where the check could not be applied; `evidence` says why."""

    verifier: str
    capability: str
    passed: bool | None
    score: float | None
    threshold: float | None
    evidence: dict[str, Any] = field(default_factory=dict)


def verify(
    items: Sequence[Item], checks: Sequence[Sequence[Check]], *, scorers: Mapping[str, Scorer] | None = None
) -> list[list[Outcome]]:
    """Judge each item by its checks; outcomes in the order of the checks.

    A scorer runs once, on just the items that some check needs it for. `scorers` replaces scorers by name, and is the
    only way to configure one (`{"clip": load("clip", …)}`). Errors: `UsageError` for an unknown verifier or an
    incomplete check.
    """
    if len(items) != len(checks):
        raise ValueError(f"{len(items)} items but {len(checks)} lists of checks")
    for check in (c for group in checks for c in group):
        _require_valid(check)
    needed: dict[str, list[int]] = {}
    for i, group in enumerate(checks):
        for name in dict.fromkeys(VERIFIERS[c["verifier"]].scorer for c in group):
            needed.setdefault(name, []).append(i)
    columns: list[dict[str, Any]] = [{} for _ in items]
    for name, rows in needed.items():
        scorer = _scorer(name, scorers or {})
        if scorer is None:
            continue
        for i, values in zip(rows, scorer.score([items[i] for i in rows])):
            columns[i][name] = values
    return [[_judge(check, seen) for check in group] for group, seen in zip(checks, columns)]


def judge_columns(check: Check, seen: Columns) -> Outcome:
    """One check on columns that were seen elsewhere, such as a benchmark's recorded outputs. Errors: as `verify`."""
    _require_valid(check)
    try:
        return _judge(check, {VERIFIERS[check["verifier"]].scorer: seen})
    except KeyError as error:
        why = f"the output has no {error.args[0]!r}"
        return Outcome(check["verifier"], check["capability"], None, None, None, {"not_applied": why})


def passed(outcomes: Sequence[Outcome]) -> bool:
    """Did every check that could be applied pass, and was there one?"""
    applied = [o.passed for o in outcomes if o.passed is not None]
    return bool(applied) and all(applied)


def _scorer(name: str, given: Mapping[str, Scorer]) -> Scorer | None:
    if name in given:
        return given[name]
    if name in ("clip", "detector"):
        return None  # never judged by weights that nobody chose
    from curation.scorers import load

    return load(name)


def _require_valid(check: Check) -> None:
    verifier = VERIFIERS.get(check.get("verifier", ""))
    if verifier is None:
        known = ", ".join(sorted(VERIFIERS))
        raise UsageError(f"unknown verifier {check.get('verifier')!r} in a check: choose from {known}")
    missing = [k for k in ("capability", *verifier.needs) if k not in check]
    if missing:
        raise UsageError(f"a {check['verifier']} check needs {', '.join(missing)}: {dict(check)}")
    if check["verifier"] == "position" and check["position"] not in ANCHORS:
        raise UsageError(f"unknown position {check['position']!r} in a check: choose from {', '.join(ANCHORS)}")


def _judge(check: Check, seen: Mapping[str, Any]) -> Outcome:
    verifier = VERIFIERS[check["verifier"]]
    name, capability = check["verifier"], check["capability"]
    values = seen.get(verifier.scorer)
    if values is None:
        why = f"the {verifier.scorer} scorer is not configured"
        return Outcome(name, capability, None, None, None, {"not_applied": why})
    if isinstance(values, Exception):
        return Outcome(name, capability, False, 0.0, None, {"error": str(values)})
    judgement = verifier.judge(check, values)
    if judgement is None:
        why = f"the {verifier.scorer} scorer has no value for this sample"
        return Outcome(name, capability, None, None, None, {"not_applied": why})
    score, threshold, evidence = judgement
    return Outcome(name, capability, score >= threshold, score, threshold, evidence)


def _text(check: Check, seen: Columns) -> Judgement:
    from curation.scorers.ocr import text_similarity

    score = text_similarity(seen["text"], check["text"])
    return score, check.get("min", TEXT_SIMILARITY), {"expected": check["text"], "seen": seen["text"]}


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


def _identity(check: Check, seen: Columns) -> Judgement | None:
    if seen["identity"] is None:
        return None
    minimum = check.get("min", IDENTITY_SIMILARITY)
    wanted = f"subject of the reference, correlation of {minimum} or more"
    return seen["identity"], minimum, {"expected": wanted, "seen": seen["identity"]}


def _unchanged(check: Check, seen: Columns) -> Judgement | None:
    if seen["unchanged"] is None:
        return None
    limit = check.get("max_changed", MAX_CHANGED_AREA)
    score = seen["unchanged"] if seen["changed_area"] <= limit else 0.0
    wanted = f"at most {limit} of the area changed"
    evidence = {"expected": wanted, "seen": seen["changed_area"], "similarity": seen["unchanged"]}
    return score, check.get("min", UNCHANGED_SIMILARITY), evidence


def _photo(check: Check, seen: Columns) -> Judgement:
    ranges = check["ranges"]
    if unknown := ranges.keys() - seen.keys():
        raise UsageError(f"a photo check names {min(unknown)!r}: choose from {', '.join(sorted(seen))}")
    values = {k: seen[k] for k in ranges}
    inside = [low <= values[k] <= high for k, (low, high) in ranges.items()]
    return sum(inside) / len(inside), 1.0, {"expected": dict(ranges), "seen": values}


def _alignment(check: Check, seen: Columns) -> Judgement | None:
    if seen["similarity"] is None:
        return None
    minimum = check.get("min", 0.25)
    wanted = f"image-text cosine of {minimum} or more"
    return seen["similarity"], minimum, {"expected": wanted, "seen": seen["similarity"]}


def _subject(check: Check, seen: Columns) -> Mapping[str, Any] | None:
    """The largest mark of the asked shape, or else of all: a wrong shape does not decide on colour and place."""
    found = seen["objects"]
    return next((o for o in found if o["shape"] == check.get("shape")), found[0] if found else None)


def nearest_anchor(x: float, y: float) -> str:
    """Name of the place nearest to a point in shares of width and height."""
    return min(ANCHORS, key=lambda name: (ANCHORS[name][0] - x) ** 2 + (ANCHORS[name][1] - y) ** 2)


@dataclass(frozen=True)
class Verifier:
    """The scorer whose columns it reads, the keys its check must have, and the judgement (None: no value to judge)."""

    scorer: str
    needs: tuple[str, ...]
    judge: Callable[[Check, Columns], Judgement | None]


VERIFIERS = {
    "text": Verifier("ocr", ("text",), _text),
    "object": Verifier("objects", ("shape",), _object),
    "color": Verifier("objects", ("color",), _color),
    "count": Verifier("objects", ("count",), _count),
    "position": Verifier("objects", ("position",), _position),
    "identity": Verifier("similarity", (), _identity),
    "unchanged": Verifier("similarity", (), _unchanged),
    "photo": Verifier("pixels", ("ranges",), _photo),
    "alignment": Verifier("clip", (), _alignment),
    "written": Verifier("ocr", ("texts",), benchmark_rules.written),
    "words": Verifier("ocr", ("texts",), benchmark_rules.words),
    "geneval": Verifier("detector", ("include",), benchmark_rules.geneval),
}
