"""Checks for a prompt from outside the suite: what its text, its references and the configured judges let us verify.

To add a check, write a function from a `Subject` to checks and list it in `MAKERS`, or declare it in a package (entry
point group `flywheel.checks`). A maker answers only for capabilities that its check tests: a case whose complaint is
about hands must not close because a word is spelled right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel.core.plugins import plugins
from flywheel.presets import Evaluation

Check = dict[str, Any]
TEXT = frozenset({"typography", "multilingual_text", "long_text", "slides", "text_editing", "instruction_following"})
CONTENT = frozenset({"object", "relation", "instruction_following"})


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What checks are made from. said: what users or judges said of the picture; settings: which judges there are."""

    prompt: str
    capability: str
    references: int
    settings: Evaluation
    said: str = ""


Maker = Callable[[Subject], Iterable[Check]]


def checks_for(
    prompt: str, references: Sequence[Path], *, capability: str, settings: Evaluation, said: str = ""
) -> tuple[Check, ...]:
    """The checks that judge `capability` on a picture of this prompt; empty if nothing can."""
    subject = Subject(
        prompt=prompt, capability=capability, references=len(references), settings=settings, said=said.strip()
    )
    makers = (*MAKERS, *plugins("flywheel.checks").values())
    return tuple(check | {"capability": capability} for make in makers for check in make(subject))


def quoted(subject: Subject) -> Iterable[Check]:
    """The text that the prompt quotes can be read in the picture."""
    from curation.scorers.quotes import quoted_text

    text = quoted_text(subject.prompt) if subject.capability in TEXT else None
    return [{"verifier": "text", "text": text}] if text else []


def things(subject: Subject) -> Iterable[Check]:
    """Each thing that the prompt names by a class of ImageNet is in the picture."""
    from curation.verify.objects import object_checks

    judged = subject.capability == "object" and not subject.references
    return object_checks(subject.prompt) if judged else []


def same_subject(subject: Subject) -> Iterable[Check]:
    """The subject of the references is the same in the picture."""
    return [{"verifier": "identity"}] if subject.references and subject.capability == "identity" else []


def same_rest(subject: Subject) -> Iterable[Check]:
    """Most of the edited picture is as it was; several references have no one picture to compare with."""
    judged = subject.references == 1 and subject.capability == "visual_consistency"
    return [{"verifier": "unchanged"}] if judged else []


def aligned(subject: Subject) -> Iterable[Check]:
    """The picture and the prompt are near each other for the configured CLIP."""
    judged = "clip" in subject.settings.scorers and not subject.references and subject.capability in CONTENT
    return [{"verifier": "alignment"}] if judged else []


def asked(subject: Subject) -> Iterable[Check]:
    """The configured judge is asked for the complaint, or else for the whole prompt."""
    from flywheel.signals.importers import DESCRIPTION, WHOLE

    if not subject.settings.judge:
        return []
    if subject.references:
        return [{"verifier": "edit"}]
    fault = f"A user said of another picture of this description: {subject.said!r}. Is this picture free of that fault?"
    return [{"verifier": "question", "question": (fault if subject.said else WHOLE[1]) + DESCRIPTION + subject.prompt}]


MAKERS: tuple[Maker, ...] = (quoted, things, same_subject, same_rest, aligned, asked)
