"""Evaluation: draw a suite with a generator, judge the pictures with the shared scorers, record the signals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.generator import Generator
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.presets import Evaluation
from flywheel.signals.drawing import OnProgress, picture_name
from flywheel.signals.results import Results, load_results
from flywheel.signals.sheets import Sheet, Workers, draw_and_judge
from flywheel.signals.suite import Prompt

if TYPE_CHECKING:
    from curation.verify.checks import Outcome


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
    workers: Workers | None = None,
    progress: OnProgress | None = None,
) -> Results:
    """Share of pictures that pass, per (prompt, capability); read from the ledger if it was already recorded.

    name: of the generator in the signals. Each prompt is drawn `settings.pictures` times: picture k from seed + k, in
    the folder `seed-<k>` from k = 1 on. A picture that the generator refuses is judged by no check.
    rewritten: {prompt_id: text that is drawn in place of the prompt}; the picture is judged by the prompt as written.
    workers: processes that draw and judge in place of this one.
    Errors: `UsageError` if `must_draw` and the generator refuses every prompt; nothing is recorded then.
    """
    ledger = Ledger(workspace, "signals")
    key = f"evaluation/{workspace.round(round_).arm(arm)}"
    if not ledger.has(key):
        folder = workspace.round(round_).samples(arm)
        shown = [replace(p, text=rewritten.get(p.prompt_id, p.text)) for p in suite]
        folders = [folder / f"seed-{k}" if k else folder for k in range(settings.pictures)]
        sheets = [Sheet(shown, suite, place, seed + k) for k, place in enumerate(folders)]
        found = draw_and_judge(
            sheets, generator, workspace=workspace, settings=settings, workers=workers, progress=progress
        )
        rows: list[dict[str, Any]] = []
        for k, (sheet, judged) in enumerate(zip(sheets, found)):
            refused = [undrawn.reason for undrawn, _ in judged if undrawn]
            if must_draw and judged and len(refused) == len(judged):
                raise UsageError(f"none of {len(judged)} pictures could be drawn: {refused[0]}")
            for prompt, (undrawn, outcomes) in zip(suite, judged):
                path = None if undrawn else workspace.relative(sheet.folder / picture_name(prompt.prompt_id))
                rows += [signal(round_, arm, name, prompt, o, path, k) for o in outcomes]
        ledger.append(rows, key=key)
    return load_results(workspace, round_, arm)


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
