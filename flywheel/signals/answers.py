"""Outcomes from what a judge (a person or a model) says about an image: answers to questions, ratings of edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flywheel.signals.suite import Prompt

if TYPE_CHECKING:
    from curation.verify.checks import Outcome

EDIT_SCORE = 0.6  # [D] 6 on the benchmark's scale of 10: an edit with a lower score fails


def question_outcome(check: Mapping[str, Any], answer: object, error: str | None = None) -> Outcome:
    """The outcome of a yes-or-no question; an answer that is neither leaves the check not applied."""
    from curation.verify.checks import Outcome

    evidence = {k: check[k] for k in ("question", "aspect") if k in check} | {"seen": answer}
    if isinstance(answer, str):
        answer = {"yes": True, "no": False}.get(answer.strip().lower().rstrip("."))
    if not isinstance(answer, bool):
        evidence["not_applied"] = error or "the question has no answer"
        return Outcome("question", check["capability"], None, None, None, evidence)
    return Outcome("question", check["capability"], answer, float(answer), 1.0, evidence)


def with_dependencies(prompt: Prompt, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """DPG's question graph: a question whose parent fails scores 0, but does not count as a failure (`passed` None)."""
    dependent = list(outcomes)
    scores = {c["id"]: o.score for c, o in zip(prompt.checks, outcomes) if "id" in c}
    for n, (check, outcome) in enumerate(zip(prompt.checks, outcomes)):
        failed = [p for p in check.get("parents", ()) if scores.get(p) == 0]
        if failed and outcome.score is not None:
            scores[check["id"]] = 0.0
            evidence = outcome.evidence | {"not_applied": f"its parent question {failed[0]} does not hold"}
            dependent[n] = replace(outcome, score=0.0, passed=None, evidence=evidence)
    return dependent


def edit_outcome(check: Mapping[str, Any], ratings: Mapping[str, Any] | None, error: str | None = None) -> Outcome:
    """The outcome of an edit's ratings from 0 to 10 (GEdit-Bench, VIEScore).

    Score: √(min(success, no_overediting) × min(natural, no_artifacts)) / 10.
    """
    from curation.verify.checks import Outcome

    keys = ("success", "no_overediting", "natural", "no_artifacts")
    if ratings is None or any(not isinstance(ratings.get(k), int | float) for k in keys):
        reason = error or "the edit has no ratings"
        return Outcome("edit", check["capability"], None, None, None, {"not_applied": reason})
    success, no_overediting, natural, no_artifacts = (float(ratings[k]) for k in keys)
    semantic, quality = min(success, no_overediting), min(natural, no_artifacts)
    score = (semantic * quality) ** 0.5 / 10
    minimum = check.get("min", EDIT_SCORE)
    lowest = min(keys, key=lambda k: float(ratings[k]))
    evidence = {"seen": dict(ratings), "semantic": semantic, "quality": quality, "failed": [lowest]}
    return Outcome("edit", check["capability"], score >= minimum, score, minimum, evidence)
