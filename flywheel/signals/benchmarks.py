"""A suite's result by the rule of its benchmark: judged outputs → one score, and one per group of the benchmark.

GenEval: share of correct images per task, then the mean over tasks. LongText-Bench and CVTG-2K: matched / wanted, both
summed over all images. DPG-Bench: mean over questions, then images, then prompts; an answer counts if its parents hold.
Edits (GEdit-Bench): √(semantic × quality), mean per group, then the mean over groups. PartiPrompts and your own suites:
share of images that pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.answers import edit_outcome, question_outcome, with_dependencies
from flywheel.signals.evaluation import signal
from flywheel.signals.suite import Prompt

if TYPE_CHECKING:
    from curation.verify.checks import Outcome


class Judged(NamedTuple):
    """One image of a prompt, judged by the prompt's checks."""

    prompt: Prompt
    outcomes: Sequence[Outcome]


@dataclass(frozen=True)
class Result:
    """`score` and `groups` are shares in [0, 1]; `not_judged` images had no verdict."""

    benchmark: str
    score: float | None
    groups: dict[str, float]
    images: int
    not_judged: int
    prompts_without_output: int


def judge_outputs(suite: Sequence[Prompt], outputs: Iterable[Mapping[str, Any]]) -> list[Judged]:
    """Judge outputs of another system: each is `{"prompt_id", …}` with what was observed in one image.

    `text`: the text that was read; `detections`: see `curation.verify.benchmark_rules.geneval`; `answers`:
    {question id: yes/no}; `ratings` of an edit: see `edit_outcome`. Errors: `UsageError` for an unknown prompt, or for
    an output that lacks what a check needs.
    """
    from curation.verify.checks import judge_columns

    known = {p.prompt_id: p for p in suite}
    judged = []
    for number, output in enumerate(outputs, 1):
        answers = output.get("answers", {}) if isinstance(output, Mapping) else None
        if not isinstance(answers, Mapping):
            raise UsageError(
                f"output {number}: give a JSON object with prompt_id, and answers as an object by question id"
            )
        prompt = known.get(output.get("prompt_id", ""))
        if prompt is None:
            raise UsageError(f"output {number}: prompt_id {output.get('prompt_id')!r} is not in the suite")
        outcomes: list[Outcome] = []
        for check in prompt.checks:
            if check["verifier"] == "question":
                outcomes.append(question_outcome(check, answers.get(str(check.get("id", 0)))))
            elif check["verifier"] == "edit":
                outcomes.append(edit_outcome(check, output.get("ratings")))
            else:
                outcomes.append(judge_columns(check, output))
        judged.append(Judged(prompt, with_dependencies(prompt, outcomes)))
    return judged


def record(workspace: Workspace, judged: Sequence[Judged], checkpoint: str) -> None:
    """Record the verdicts on outputs as signals that belong to no round; equal outputs count once."""
    from flywheel.signals.feedback import known_ids, one_at_a_time

    rows: dict[str, dict[str, Any]] = {}
    for image, (prompt, outcomes) in enumerate(judged):
        for check, outcome in enumerate(outcomes):
            row = signal(None, None, checkpoint, prompt, outcome, None)
            row["signal_id"] = digest(checkpoint, prompt.prompt_id, image, check, outcome.evidence)[:32]
            rows[row["signal_id"]] = row
    with one_at_a_time(workspace):
        known = known_ids(workspace, "evaluation")
        new = [row for identity, row in rows.items() if identity not in known]
        Ledger(workspace, "signals").append(new, key=f"outputs/{digest(sorted(rows))[:32]}")


def result(suite: Sequence[Prompt], judged: Sequence[Judged]) -> Result:
    """The result by the benchmark's rule. Errors: `UsageError` if the suite mixes several benchmarks."""
    names = {p.benchmark for p in suite}
    if len(names) > 1:
        raise UsageError(f"one result needs one benchmark, this suite mixes {', '.join(sorted(names))}")
    benchmark = names.pop() if names else ""
    usable = [j for j in judged if any(o.score is not None for o in j.outcomes)]
    score, groups = _RULES.get(benchmark, _pass_rate)(usable) if usable else (None, {})
    with_output = {j.prompt.prompt_id for j in judged}
    return Result(
        benchmark=benchmark,
        score=score,
        groups=groups,
        images=len(judged),
        not_judged=len(judged) - len(usable),
        prompts_without_output=sum(p.prompt_id not in with_output for p in suite),
    )


def _grouped(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for name, value in values:
        groups.setdefault(name, []).append(value)
    return {name: _mean(group) for name, group in sorted(groups.items())}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _mean_of_groups(judged: Sequence[Judged]) -> tuple[float, dict[str, float]]:
    groups = _grouped((p.category, _first(o).score) for p, o in judged)
    return _mean(groups.values()), groups


def _first(outcomes: Sequence[Outcome]) -> Any:
    return next(o for o in outcomes if o.score is not None)


def _matched(judged: Sequence[Judged]) -> tuple[float, dict[str, float]]:
    counts: dict[str, list[int]] = {}
    for prompt, outcomes in judged:
        evidence = _first(outcomes).evidence
        for name in ("", prompt.category):
            pair = counts.setdefault(name, [0, 0])
            pair[0] += evidence["matched"]
            pair[1] += evidence["wanted"]
    shares = {name: matched / wanted for name, (matched, wanted) in sorted(counts.items())}
    groups = {k: v for k, v in shares.items() if k}
    if "ned" in _first(judged[0][1]).evidence:
        groups["NED"] = _mean(_first(o).evidence["ned"] for _, o in judged)
    return shares[""], groups


def _question_graph(judged: Sequence[Judged]) -> tuple[float, dict[str, float]]:
    images: dict[str, list[float]] = {}
    aspects = []
    for prompt, outcomes in judged:
        scores = [o.score or 0.0 for o in outcomes]
        images.setdefault(prompt.prompt_id, []).append(_mean(scores))
        aspects += [
            (c["aspect"].split(" - ")[0], float(o.evidence.get("seen") in (True, "yes")))
            for c, o in zip(prompt.checks, outcomes)
            if "aspect" in c
        ]
    return _mean(_mean(v) for v in images.values()), _grouped(aspects)


def _pass_rate(judged: Sequence[Judged]) -> tuple[float, dict[str, float]]:
    passes = [(p.category, float(all(x.passed is not False for x in o))) for p, o in judged]
    return _mean(v for _, v in passes), _grouped(passes)


_RULES = {
    "geneval": _mean_of_groups,
    "longtext": _matched,
    "cvtg": _matched,
    "dpg": _question_graph,
    "edit": _mean_of_groups,
}
