"""The prompts of cases, ready to be sampled and judged; and what a person is asked where nothing can judge a case."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from flywheel.cases.capability import load_taxonomy
from flywheel.cases.checks import checks_for
from flywheel.cases.events import Case
from flywheel.cases.fold import connect
from flywheel.core.image import BadImage, decode
from flywheel.core.workspace import Workspace
from flywheel.presets import Evaluation
from flywheel.signals.suite import Prompt

PICTURES = 8  # pictures that a person is shown

# What the signals of a prompt say about it. Evaluation of rounds is left out: the suite itself knows its prompts.
_TOLD = """
SELECT prompt_id, max(task) AS task,
       arg_max(evidence->>'$.references', "at") FILTER ((evidence->>'$.references') IS NOT NULL) AS "references"
FROM signals JOIN wanted USING (prompt_id)
WHERE NOT (kind = 'evaluation' AND round IS NOT NULL) GROUP BY prompt_id
"""
_SEEN = """
SELECT case_id, evidence FROM case_events JOIN chosen USING (case_id)
WHERE kind IN ('detected', 'seen', 'failed') ORDER BY "at"
"""


@dataclass(frozen=True)
class CasePrompts:
    """prompts: of cases that the suite does not judge, with checks of their own; each once, whatever its capabilities.

    unjudged: {case id: why nothing can judge it}.
    """

    prompts: tuple[Prompt, ...]
    unjudged: Mapping[str, str]

    def with_suite(self, suite: Iterable[Prompt]) -> list[Prompt]:
        """The suite and these prompts; a prompt of both has the checks of both."""
        own = {p.prompt_id: p for p in self.prompts}
        joined = [replace(p, checks=p.checks + own.pop(p.prompt_id).checks) if p.prompt_id in own else p for p in suite]
        return [*joined, *own.values()]


def case_prompts(
    workspace: Workspace, cases: Collection[Case], suite: Iterable[Prompt], settings: Evaluation
) -> CasePrompts:
    """The prompts to sample for these cases, beside the suite's own."""
    of_suite = {p.prompt_id: p for p in suite}
    judged = {(p.prompt_id, c["capability"]) for p in of_suite.values() for c in p.checks}
    own = [c for c in cases if (c.prompt_id, c.capability) not in judged]
    if not own:
        return CasePrompts((), {})
    told, said = _told(workspace, own), {i: complaint for i, (complaint, _) in seen(workspace, own).items()}
    prompts: dict[str, Prompt] = {}
    unjudged: dict[str, str] = {}
    for case in own:
        prompt = of_suite.get(case.prompt_id) or told.get(case.prompt_id) or _plain(case)
        checks = checks_for(
            prompt.text, prompt.references, capability=case.capability, settings=settings, said=said[case.case_id]
        )
        if why := _unusable(prompt) or (None if checks else f"no verifier can judge {case.capability} on this prompt"):
            unjudged[case.case_id] = why
        else:
            known = prompts.get(case.prompt_id, replace(prompt, checks=()))
            prompts[case.prompt_id] = replace(known, checks=known.checks + checks)
    return CasePrompts(tuple(prompts.values()), unjudged)


def questions(workspace: Workspace, unjudged: Mapping[str, str], cases: Collection[Case]) -> dict[str, dict[str, Any]]:
    """For each case that a person has to judge, the evidence of its route: reason, question, pictures (paths)."""
    chosen = [c for c in cases if c.case_id in unjudged]
    meanings, shown = load_taxonomy().capabilities, seen(workspace, chosen)
    out = {}
    for case in chosen:
        complaint, pictures = shown[case.case_id]
        about = meanings.get(case.capability, case.capability)
        question = f"Does the picture fail in this: {about}? If so, what should training change?"
        out[case.case_id] = {
            "reason": f"{unjudged[case.case_id]}: a person decides",
            "question": f"{question} Users said: {complaint}" if complaint else question,
            "pictures": pictures[:PICTURES],
            "sure": True,
        }
    return out


def seen(workspace: Workspace, cases: Collection[Case]) -> dict[str, tuple[str, list[str]]]:
    """{case id: (what users said of it, pictures that failed)}, from its events."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {c.case_id: ({}, {}) for c in cases}
    with closing(connect(workspace, ("case_events",))) as con:
        con.register("chosen", pa.table({"case_id": pa.array(list(found), pa.string())}))
        for case_id, evidence in con.execute(_SEEN).fetchall():
            said, pictures = found[case_id]
            for signal in json.loads(evidence or "{}").get("signals", ()):
                detail = signal["evidence"]
                detail = json.loads(detail or "{}") if isinstance(detail, str | None) else detail
                if reason := str(detail.get("reason") or "").strip():
                    said[reason] = None
                if signal.get("image"):
                    pictures[signal["image"]] = None
    return {i: ("; ".join(said), list(pictures)) for i, (said, pictures) in found.items()}


def _told(workspace: Workspace, cases: Sequence[Case]) -> dict[str, Prompt]:
    texts = {c.prompt_id: c.prompt for c in cases}
    with closing(connect(workspace, ("signals",))) as con:
        con.register("wanted", pa.table({"prompt_id": pa.array(list(texts), pa.string())}))
        rows = con.execute(_TOLD).fetchall()
    return {
        i: Prompt(i, texts[i], task, tuple(workspace.path(r) for r in json.loads(references or "[]")), ())
        for i, task, references in rows
    }


def _plain(case: Case) -> Prompt:
    return Prompt(case.prompt_id, case.prompt, "t2i", (), ())


def _unusable(prompt: Prompt) -> str | None:
    """Why the prompt cannot be sampled; None if it can."""
    if prompt.task == "ti2i" and not prompt.references:
        return "the signals of this edit name no reference pictures"
    for reference in prompt.references:
        try:
            decode(reference.read_bytes())
        except (OSError, BadImage) as error:
            return f"its reference {reference.name} cannot be read ({error})"
    return None
