"""Pictures judged by the checks of their prompts: by the shared scorers, and by a judge where one is configured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.core.errors import UsageError
from flywheel.core.generator import Undrawn
from flywheel.core.plugins import plugins
from flywheel.core.scorer import Item, Scorer
from flywheel.core.workspace import Workspace
from flywheel.presets import Evaluation
from flywheel.signals.suite import JUDGED, Prompt

if TYPE_CHECKING:
    from curation.verify.checks import Outcome
    from flywheel.signals.judge import Judge


@dataclass(frozen=True)
class Verifiers:
    """Configured judges, beside the scorers that need no configuration: scorers by name (clip, …) and a VLM judge."""

    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    judge: Judge | None = None

    @classmethod
    def of(cls, workspace: Workspace | None, settings: Evaluation) -> Verifiers:
        """Those that the preset configures; the judge's answers are cached in the workspace. Errors: `UsageError`."""
        from curation.scorers import Unavailable, load

        try:
            scorers = {
                name: load(options.get("scorer", name), **{k: v for k, v in options.items() if k != "scorer"})
                for name, options in settings.scorers.items()
            }
            judge = judge_of(settings.judge, workspace.path("judge") if workspace else None)
        except Unavailable as error:
            raise UsageError(f"preset, evaluation.scorers: {error}") from error
        except TypeError as error:
            raise UsageError(f"preset, evaluation.scorers: {error}; give only options of that scorer") from error
        return cls(scorers, judge)


def judge_of(settings: Mapping[str, Any], cache: Path | None) -> Judge | None:
    """The judge that a preset configures: an endpoint, or with `kind` a plug-in. Errors: `UsageError`."""
    from flywheel.core.endpoint import Endpoint
    from flywheel.signals.judge import Judge, OwnJudge

    if not settings:
        return None
    try:
        if "kind" not in settings:
            return Judge(Endpoint(**settings, cache=cache))
        return OwnJudge(judge_class(settings["kind"])(**{k: v for k, v in settings.items() if k != "kind"}))
    except TypeError as error:
        raise UsageError(f"{error}; give url, model and, if needed, key_variable, or a kind") from error


def judge_class(kind: Any) -> Any:
    """The class of a judge that a package declares. Errors: `UsageError` for an unknown kind."""
    known = plugins("flywheel.judges")
    if kind not in known:
        raise UsageError(f"no package declares a judge of kind {kind!r} (flywheel.judges)")
    return known[kind]


def judge_images(
    suite: Sequence[Prompt], images: Sequence[bytes | Undrawn], *, by: Verifiers | None = None
) -> list[list[Outcome]]:
    """The outcomes of each prompt's checks on its image; checks without a picture, scorer or judge are not applied."""
    there = [(p, image) for p, image in zip(suite, images) if isinstance(image, bytes)]
    judged = iter(_judge([p for p, _ in there], [image for _, image in there], by or Verifiers()))
    return [_not_drawn(p, x) if isinstance(x, Undrawn) else next(judged) for p, x in zip(suite, images)]


def _not_drawn(prompt: Prompt, why: Undrawn) -> list[Outcome]:
    from curation.verify.checks import Outcome

    evidence = {"not_applied": f"no picture was drawn: {why.reason}"}
    return [Outcome(c["verifier"], c["capability"], None, None, None, evidence) for c in prompt.checks]


def _judge(suite: Sequence[Prompt], images: Sequence[bytes], by: Verifiers) -> list[list[Outcome]]:
    from curation.verify.checks import verify
    from flywheel.signals.answers import with_dependencies
    from flywheel.signals.judge import judge_with

    items = [
        Item(image=image, caption=p.text, task=p.task, references=p.reference_bytes())
        for p, image in zip(suite, images)
    ]
    scored = verify(items, [[c for c in p.checks if c["verifier"] not in JUDGED] for p in suite], scorers=by.scorers)
    answered = judge_with(by.judge, suite, images)
    judged = []
    for prompt, by_scorers, by_judge in zip(suite, scored, answered):
        rest = iter(by_scorers)
        outcomes = [by_judge[n] if n in by_judge else next(rest) for n in range(len(prompt.checks))]
        judged.append(with_dependencies(prompt, outcomes))
    return judged
