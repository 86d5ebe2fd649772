"""Check whether an image shows what was requested. Checks are data, judged on the columns of curation's scorers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from curation.verify import benchmark_rules
from flywheel.core.errors import UsageError
from flywheel.core.plugins import plugins
from flywheel.core.scorer import Item, Scorer

Check = Mapping[str, Any]
Columns = Mapping[str, Any]  # "scorer.column" → value
Judgement = tuple[float, float, dict[str, Any]]  # score, threshold, evidence

TEXT_SIMILARITY = 0.85  # one wrong letter in six fails, so words of up to six letters need every letter
IDENTITY_SIMILARITY = 0.75  # between a blurred mascot (0.90) and a plain disc of its colour (0.65)
UNCHANGED_SIMILARITY = 0.8
MAX_CHANGED_AREA = 0.6
CLASSES = 1000  # of ImageNet
# The score of what has nothing that is wanted: a share or likeness of 0, a cosine or correlation of -1.
_LEAST = {"text": 0, "words": 0, "written": 0, "imagenet": 0, "unchanged": 0, "identity": -1, "alignment": -1}
OBJECT_PROBABILITY = 0.01  # of the named class: 98 % of photographs reach it, 0.3 % of photographs of something else


@dataclass(frozen=True)
class Outcome:
    """Result of one check on one image. `passed` is None if the check could not be applied; `evidence` says why."""

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

    Each scorer runs once, only on the items whose checks need it. `scorers` replaces scorers by name and is the only
    way to configure one (`{"clip": load("clip", …)}`). A check whose scorer lacks its weights is not applied. Errors:
    `UsageError` for an unknown or incomplete check.

    >>> import flywheel as fw
    >>> from pathlib import Path
    >>> item = fw.Item(Path("photos/0.png").read_bytes())
    >>> ((outcome,),) = fw.verify([item], [[{"verifier": "count", "capability": "count", "count": 2}]])
    >>> outcome.passed, outcome.evidence["seen"]
    (False, 0)
    """
    if len(items) != len(checks):
        raise ValueError(f"{len(items)} items but {len(checks)} lists of checks")
    for check in (c for group in checks for c in group):
        _require_valid(check)
    needed: dict[str, list[int]] = {}
    for i, group in enumerate(checks):
        for name in dict.fromkeys(verifiers()[c["verifier"]].scorer for c in group):
            needed.setdefault(name, []).append(i)
    columns: list[dict[str, Any]] = [{} for _ in items]
    for name, rows in needed.items():
        scorer = _scorer(name, scorers or {})
        if isinstance(scorer, str):
            for i in rows:
                columns[i][name] = scorer
            continue
        for i, values in zip(rows, scorer.score([items[i] for i in rows])):
            columns[i][name] = values
    return [[_judge(check, scores) for check in group] for group, scores in zip(checks, columns)]


def judge_columns(check: Check, columns: Columns) -> Outcome:
    """Judge one check on columns computed elsewhere, such as a benchmark's recorded outputs. Errors: as `verify`."""
    _require_valid(check)
    try:
        return _judge(check, {verifiers()[check["verifier"]].scorer: columns})
    except KeyError as error:
        why = f"the output has no {error.args[0]!r}"
        return Outcome(check["verifier"], check["capability"], None, None, None, {"not_applied": why})


def passed(outcomes: Sequence[Outcome]) -> bool:
    """Whether at least one check could be applied and all applied checks passed."""
    applied = [o.passed for o in outcomes if o.passed is not None]
    return bool(applied) and all(applied)


def _scorer(name: str, configured: Mapping[str, Scorer]) -> Scorer | str:
    """The scorer, or the reason why there is none."""
    from curation.scorers import Unavailable, load

    if name in configured:
        return configured[name]
    if name == "detector":
        return f"the {name} scorer is not configured"  # none ships with the package
    try:
        return load(name)
    except Unavailable as error:
        return str(error)


def _require_valid(check: Check) -> None:
    verifier = verifiers().get(check.get("verifier", ""))
    if verifier is None:
        known = ", ".join(sorted(verifiers()))
        raise UsageError(f"unknown verifier {check.get('verifier')!r} in a check: choose from {known}")
    missing = [k for k in ("capability", *verifier.needs) if k not in check]
    if missing:
        raise UsageError(f"a {check['verifier']} check needs {', '.join(missing)}: {dict(check)}")
    for key in check if check["verifier"] in _BUILT_IN else ():
        if fault := _fault(key, check[key]):
            raise UsageError(f"the check {check['verifier']!r} needs {fault}: {dict(check)}")
    if "min" in check and not _is_number(check["min"]):
        raise UsageError(f"the check {check['verifier']!r} needs a min that is a number: {dict(check)}")
    least = _LEAST.get(check["verifier"])
    if least is not None and check.get("min", 1) <= least:
        raise UsageError(
            f"the check {check['verifier']!r} needs a min above {least}, or anything would pass: {dict(check)}"
        )
    for key, choices in verifier.choices.items():
        if check[key] not in choices:
            raise UsageError(f"unknown {key} {check[key]!r} in a check: choose from {', '.join(choices)}")


def _fault(key: str, value: Any) -> str:
    """What a key of a built-in check must be, if its value is something else; else empty."""
    several = isinstance(value, list | tuple)
    if key == "text" and not isinstance(value, str):
        return "a text that is text"
    if key == "texts" and not (several and all(isinstance(t, str) for t in value)):
        return "texts that are a list of texts"
    if key == "classes" and not (several and all(isinstance(c, int) and 0 <= c < CLASSES for c in value)):
        return f"classes that are numbers below {CLASSES}"
    if key == "ranges" and not (isinstance(value, Mapping) and all(map(_is_range, value.values()))):
        return "ranges of two numbers each, the lower one first"
    if key == "max_changed" and not (_is_number(value) and 0 <= value <= 1):
        return "a max_changed from 0 to 1"
    if key == "include" and not (several and all(isinstance(c, Mapping) and c.get("count", 1) > 0 for c in value)):
        return "include clauses with a count of 1 or more"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_range(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]


def _judge(check: Check, scores: Mapping[str, Any]) -> Outcome:
    """Judge one check. `scores`: scorer → its columns, the exception it raised for this item, or why it did not run."""
    verifier = verifiers()[check["verifier"]]
    name, capability = check["verifier"], check["capability"]
    values = scores[verifier.scorer]
    if isinstance(values, str):
        return Outcome(name, capability, None, None, None, {"not_applied": values})
    if isinstance(values, Exception):
        return Outcome(name, capability, False, 0.0, None, {"error": str(values)})
    judgement = verifier.judge(check, values)
    if judgement is None:
        why = f"nothing to compare: the check asks for nothing that the {verifier.scorer} scorer's values can show"
        return Outcome(name, capability, None, None, None, {"not_applied": why})
    score, threshold, evidence = judgement
    return Outcome(name, capability, score >= threshold, score, threshold, evidence)


def _text(check: Check, columns: Columns) -> Judgement | None:
    from curation.scorers.language import readable
    from curation.scorers.quotes import comparable, text_similarity

    if not comparable(check["text"]) or not readable(check["text"]):
        return None
    score = text_similarity(columns["text"], check["text"])
    return score, check.get("min", TEXT_SIMILARITY), {"expected": check["text"], "seen": columns["text"]}


def _object(check: Check, columns: Columns) -> Judgement | None:
    from curation.scorers.imagenet import labels

    if not check["classes"]:
        return None
    seen = dict(zip(columns["classes"], columns["probabilities"]))
    score = float(sum(seen.get(c, 0.0) for c in check["classes"]))
    evidence = {
        "expected": check.get("object") or [labels()[c][0] for c in check["classes"]],
        "seen": {labels()[c][0]: round(p, 3) for c, p in list(seen.items())[:3]},
    }
    return score, check.get("min", OBJECT_PROBABILITY), evidence


def _change(check: Check, columns: Columns) -> Judgement | None:
    """The measure that is farthest from its range decides: 1 in its middle, 0.5 at its edge, towards 0 beyond it."""
    values = _ranged(check, columns)
    if not values or None in values.values():
        return None
    excess = {k: _excess(values[k], low, high) for k, (low, high) in check["ranges"].items()}
    worst = max(excess, key=lambda k: excess[k])
    return 1 / (1 + excess[worst]), 0.5, {"expected": {worst: check["ranges"][worst]}, "seen": values}


def _excess(value: float, low: float, high: float) -> float:
    """Distance from the middle of a range, 1 at its edge; a range of one value holds that value alone."""
    if low == high:
        return 0.0 if value == low else math.inf
    return abs(value - (low + high) / 2) / ((high - low) / 2)


def _identity(check: Check, columns: Columns) -> Judgement | None:
    if columns["identity"] is None:
        return None
    minimum = check.get("min", IDENTITY_SIMILARITY)
    wanted = f"subject of the reference, correlation of {minimum} or more"
    return columns["identity"], minimum, {"expected": wanted, "seen": columns["identity"]}


def _unchanged(check: Check, columns: Columns) -> Judgement | None:
    if columns["unchanged"] is None:
        return None
    limit = check.get("max_changed", MAX_CHANGED_AREA)
    score = columns["unchanged"] if columns["changed_area"] <= limit else 0.0
    wanted = f"at most {limit} of the area changed"
    evidence = {"expected": wanted, "seen": columns["changed_area"], "similarity": columns["unchanged"]}
    return score, check.get("min", UNCHANGED_SIMILARITY), evidence


def _photo(check: Check, columns: Columns) -> Judgement | None:
    values = _ranged(check, columns)
    if not values:
        return None
    inside = [low <= values[k] <= high for k, (low, high) in check["ranges"].items()]
    return sum(inside) / len(inside), 1.0, {"expected": dict(check["ranges"]), "seen": values}


def _ranged(check: Check, columns: Columns) -> dict[str, Any]:
    """Values of the columns that the check has ranges for. Errors: `UsageError` for a column that is none."""
    if unknown := check["ranges"].keys() - columns.keys():
        known = ", ".join(sorted(columns))
        raise UsageError(f"a {check['verifier']} check names {min(unknown)!r}: choose from {known}")
    return {k: columns[k] for k in check["ranges"]}


def _alignment(check: Check, columns: Columns) -> Judgement | None:
    if columns["similarity"] is None:
        return None
    minimum = check.get("min", 0.25)
    wanted = f"image-text cosine of {minimum} or more"
    return columns["similarity"], minimum, {"expected": wanted, "seen": columns["similarity"]}


@dataclass(frozen=True)
class Verifier:
    """The scorer whose columns it reads, the keys that its check needs, and the judgement (None: no value to judge).

    `choices`: key → its allowed values.
    """

    scorer: str
    needs: tuple[str, ...]
    judge: Callable[[Check, Columns], Judgement | None]
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)


_BUILT_IN = {
    "text": Verifier("ocr", ("text",), _text),
    "identity": Verifier("similarity", (), _identity),
    "unchanged": Verifier("similarity", (), _unchanged),
    "photo": Verifier("photo", ("ranges",), _photo),
    "imagenet": Verifier("imagenet", ("classes",), _object),
    "change": Verifier("change", ("ranges",), _change),
    "alignment": Verifier("clip", (), _alignment),
    "written": Verifier("ocr", ("texts",), benchmark_rules.written),
    "words": Verifier("ocr", ("texts",), benchmark_rules.words),
    "geneval": Verifier("detector", ("include",), benchmark_rules.geneval),
}


@cache
def verifiers() -> dict[str, Verifier]:
    """Verifiers by name: built-in ones and those of packages (entry point group `flywheel.verifiers`)."""
    return plugins("flywheel.verifiers") | _BUILT_IN


def scorer_of(check: Check) -> str:
    """The scorer that judges a check; the verifier's own name if it is none of a scorer, as a judge's question."""
    name = check["verifier"]
    known = verifiers().get(name)
    return known.scorer if known else str(name)
