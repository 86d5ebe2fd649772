"""Evaluation: draw a suite with a generator, judge the pictures with the shared scorers, record the signals."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flywheel.core.errors import UsageError
from flywheel.core.files import digest, write_bytes
from flywheel.core.generator import Generator, Pixels, Undrawn, png
from flywheel.core.image import decode
from flywheel.core.ledger import Ledger
from flywheel.core.plugins import plugins
from flywheel.core.scorer import Item, Scorer
from flywheel.core.workspace import Workspace
from flywheel.presets import Evaluation
from flywheel.signals.results import Results, load_results
from flywheel.signals.suite import JUDGED, Prompt

if TYPE_CHECKING:
    from curation.verify.checks import Outcome
    from flywheel.signals.judge import Judge

BATCH = 32  # images sampled together
OnProgress = Callable[..., None]  # called as progress(done, total, note)


def evaluate(
    workspace: Workspace,
    suite: Sequence[Prompt],
    generator: Generator,
    name: str,
    *,
    round_: int,
    arm: str,
    settings: Evaluation,
    seed: int,
    rewritten: Mapping[str, str] = {},
    must_draw: bool = True,
    progress: OnProgress | None = None,
) -> Results:
    """Share of pictures that pass, per (prompt, capability); read from the ledger if it was already recorded.

    name: of the generator in the signals. Each prompt is drawn `settings.pictures` times: picture k from seed + k, in
    the folder `seed-<k>` from k = 1 on. A picture that the generator refuses is judged by no check.
    rewritten: {prompt_id: text that is drawn in place of the prompt}; the picture is judged by the prompt as written.
    Errors: `UsageError` if `must_draw` and the generator refuses every prompt; nothing is recorded then.
    """
    ledger = Ledger(workspace, "signals")
    key = f"evaluation/{workspace.round(round_).arm(arm)}"
    if not ledger.has(key):
        folder = workspace.round(round_).samples(arm)
        by = Verifiers.of(workspace, settings)
        shown = [replace(p, text=rewritten.get(p.prompt_id, p.text)) for p in suite]
        rows: list[dict[str, Any]] = []
        for k in range(settings.pictures):
            drawn = folder / f"seed-{k}" if k else folder
            images = sample_suite(
                shown,
                generator,
                drawn,
                settings=settings,
                seed=seed + k,
                progress=progress and _part(progress, k * len(suite), settings.pictures * len(suite)),
            )
            refused = [x.reason for x in images if isinstance(x, Undrawn)]
            if must_draw and images and len(refused) == len(images):
                raise UsageError(f"none of {len(images)} pictures could be drawn: {refused[0]}")
            for prompt, image, outcomes in zip(suite, images, judge_images(suite, images, by=by)):
                path = workspace.relative(drawn / picture_name(prompt.prompt_id))
                rows += [
                    signal(round_, arm, name, prompt, o, None if isinstance(image, Undrawn) else path, k)
                    for o in outcomes
                ]
        ledger.append(rows, key=key)
    return load_results(workspace, round_, arm)


def _part(progress: OnProgress, before: int, total: int) -> OnProgress:
    return lambda done, _, note: progress(before + done, total, note)


def sample_suite(
    suite: Sequence[Prompt],
    generator: Generator,
    folder: Path,
    *,
    settings: Evaluation,
    seed: int,
    progress: OnProgress | None = None,
) -> list[bytes | Undrawn]:
    """One PNG per prompt, in the order of the suite, or why there is none. Equally many references are drawn together.

    Pictures that are in `folder` already are not drawn again; where pictures of a batch depend on each other, batches.
    Errors: `UsageError` if some can only be drawn by asking again later; those drawn are kept.
    """
    refused: dict[str, Undrawn] = {}
    ordered = sorted(suite, key=lambda p: len(p.references))
    done = 0
    for _, group in itertools.groupby(ordered, key=lambda p: len(p.references)):
        for batch in _batches(list(group)):
            missing = [p for p in batch if not (folder / picture_name(p.prompt_id)).exists()]
            done += len(batch) - len(missing)
            # Always whole batches, if the size of a batch changes the last bits of its pictures.
            asked = missing if generator.independent or not missing else batch
            for prompt, picture in zip(asked, _drawn(generator, asked, settings, seed), strict=True):
                if isinstance(picture, Undrawn):
                    refused[prompt.prompt_id] = picture
                else:
                    write_bytes(folder / picture_name(prompt.prompt_id), png(picture))
                done += prompt in missing
                if progress:
                    progress(done, len(suite), "images")
    if again := [x for x in refused.values() if x.again]:
        raise UsageError(
            f"{len(again)} of {len(suite)} pictures could not be drawn ({again[0].reason}): run this again to resume, "
            "the others are kept"
        )
    return [refused.get(p.prompt_id) or (folder / picture_name(p.prompt_id)).read_bytes() for p in suite]


def _drawn(
    generator: Generator, prompts: Sequence[Prompt], settings: Evaluation, seed: int
) -> Iterator[Pixels | Undrawn]:
    """The pictures of prompts with equally many references, in order."""
    if prompts:
        yield from generator.draw(
            [p.text for p in prompts],
            seeds=[seed] * len(prompts),
            size=(settings.side, settings.side),
            references=[[np.asarray(decode(r)) for r in p.reference_bytes()] for p in prompts],
            steps=settings.steps,
            guidance=settings.cfg,
        )


def picture_name(prompt_id: str) -> str:
    """File name of a prompt's picture: ids that are no file name, as other systems may give, stand as their digest."""
    plain = re.fullmatch(r"[\w-][\w .-]*", prompt_id) and len(prompt_id.encode()) <= 200
    return f"{prompt_id if plain else digest(prompt_id)[:32]}.png"


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
            judge = _judge_of(settings.judge, workspace.path("judge") if workspace else None)
        except Unavailable as error:
            raise UsageError(f"preset, evaluation.scorers: {error}") from error
        except TypeError as error:
            raise UsageError(
                f"preset, evaluation.judge: {error}; give url, model and, if needed, key_variable, or a kind"
            ) from error
        return cls(scorers, judge)


def _judge_of(settings: Mapping[str, Any], cache: Path | None) -> Judge | None:
    """The judge that a preset configures: an endpoint, or with `kind` a plug-in. Errors: `TypeError`, `UsageError`."""
    from flywheel.core.endpoint import Endpoint
    from flywheel.signals.judge import Judge, OwnJudge

    if not settings:
        return None
    if "kind" not in settings:
        return Judge(Endpoint(**settings, cache=cache))
    known, kind = plugins("flywheel.judges"), settings["kind"]
    if kind not in known:
        raise UsageError(f"preset, evaluation.judge: no package declares the judge {kind!r} (flywheel.judges)")
    return OwnJudge(known[kind](**{k: v for k, v in settings.items() if k != "kind"}))


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


def _batches(prompts: list[Prompt]) -> list[list[Prompt]]:
    return [prompts[i : i + BATCH] for i in range(0, len(prompts), BATCH)]


def signal(
    round_: int | None,
    arm: str | None,
    checkpoint: str,
    prompt: Prompt,
    outcome: Outcome,
    image: str | None,
    picture: int = 0,
) -> dict[str, Any]:
    """One outcome as a row of the signals ledger. picture: number of the prompt's picture, from 0."""
    parts = [outcome.evidence["question"]] if "question" in outcome.evidence else []
    parts += [picture] if picture else []
    return {
        "signal_id": digest(checkpoint, prompt.prompt_id, outcome.verifier, outcome.capability, *parts)[:32],
        "round": round_,
        "arm": arm,
        "checkpoint": checkpoint,
        "kind": "evaluation",
        "prompt_id": prompt.prompt_id,
        "prompt": prompt.text,
        "task": prompt.task,
        "verifier": outcome.verifier,
        "capability": outcome.capability,
        "passed": outcome.passed,
        "score": outcome.score,
        "threshold": outcome.threshold,
        "evidence": json.dumps(outcome.evidence, ensure_ascii=False, default=str),
        "image": image,
    }
