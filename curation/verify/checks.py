"""Does an image show what was asked for? Checks are data, judged on the columns of the scorers that curation uses."""

from __future__ import annotations

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

TEXT_SIMILARITY = 0.85  # one wrong letter in six fails; up to six letters that means every letter
IDENTITY_SIMILARITY = 0.75  # between the mascot after blur (0.90) and a plain disc of its colour (0.65)
UNCHANGED_SIMILARITY = 0.8
MAX_CHANGED_AREA = 0.6


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
        for name in dict.fromkeys(verifiers()[c["verifier"]].scorer for c in group):
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
        return _judge(check, {verifiers()[check["verifier"]].scorer: seen})
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
    verifier = verifiers().get(check.get("verifier", ""))
    if verifier is None:
        known = ", ".join(sorted(verifiers()))
        raise UsageError(f"unknown verifier {check.get('verifier')!r} in a check: choose from {known}")
    missing = [k for k in ("capability", *verifier.needs) if k not in check]
    if missing:
        raise UsageError(f"a {check['verifier']} check needs {', '.join(missing)}: {dict(check)}")
    for key, known in verifier.choices.items():
        if check[key] not in known:
            raise UsageError(f"unknown {key} {check[key]!r} in a check: choose from {', '.join(known)}")


def _judge(check: Check, seen: Mapping[str, Any]) -> Outcome:
    verifier = verifiers()[check["verifier"]]
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


@dataclass(frozen=True)
class Verifier:
    """The scorer whose columns it reads, the keys its check must have, and the judgement (None: no value to judge).

    `choices`: the values that a key may have.
    """

    scorer: str
    needs: tuple[str, ...]
    judge: Callable[[Check, Columns], Judgement | None]
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)


_OWN = {
    "text": Verifier("ocr", ("text",), _text),
    "identity": Verifier("similarity", (), _identity),
    "unchanged": Verifier("similarity", (), _unchanged),
    "photo": Verifier("pixels", ("ranges",), _photo),
    "alignment": Verifier("clip", (), _alignment),
    "written": Verifier("ocr", ("texts",), benchmark_rules.written),
    "words": Verifier("ocr", ("texts",), benchmark_rules.words),
    "geneval": Verifier("detector", ("include",), benchmark_rules.geneval),
}


@cache
def verifiers() -> dict[str, Verifier]:
    """Verifiers by name: those of packages (entry points of the group `flywheel.verifiers`), and ours."""
    return plugins("flywheel.verifiers") | _OWN
