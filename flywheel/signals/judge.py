"""A vision-language model as judge: yes-or-no questions about an image, ratings of an edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flywheel.core.endpoint import Endpoint, Unanswered, image_part
from flywheel.signals.answers import edit_outcome, question_outcome
from flywheel.signals.suite import JUDGED, Prompt

if TYPE_CHECKING:
    from curation.verify.checks import Outcome

ANSWERS = {
    "type": "object",
    "properties": {
        "answers": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"id": {"type": "integer"}, "answer": {"enum": ["yes", "no"]}},
                "required": ["id", "answer"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["answers"],
    "additionalProperties": False,
}
RATING_KEYS = ("success", "no_overediting", "natural", "no_artifacts")
RATINGS = {
    "type": "object",
    "properties": {k: {"type": "number", "minimum": 0, "maximum": 10} for k in RATING_KEYS},
    "required": list(RATING_KEYS),
    "additionalProperties": False,
}
ASK = "Look at the picture and answer each question with yes or no, by its id. Answer yes only where you can see it."
RATE = (
    "The first pictures are the sources, the last one is the result of this instruction: {}\n"
    "Rate from 0 to 10: success (is the instruction carried out), no_overediting (is the rest as it was), natural (are"
    " light, proportion and scene plausible), no_artifacts (is it free of distortions, blur and unreadable faces)."
)
UNCONFIGURED = "no judge is configured: set judge = { url = …, model = … } in [evaluation] of the preset"


@dataclass(frozen=True)
class Judge:
    """Judges through an endpoint, several images at a time."""

    endpoint: Endpoint
    workers: int = 8

    def outcomes(self, suite: Sequence[Prompt], images: Sequence[bytes]) -> list[dict[int, Outcome]]:
        """For each image, {place of a judged check: outcome}. Without an answer, checks are not applied."""
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(self._judge, suite, images))

    def _judge(self, prompt: Prompt, image: bytes) -> dict[int, Outcome]:
        questions = {n: c for n, c in enumerate(prompt.checks) if c["verifier"] == "question"}
        edits = {n: c for n, c in enumerate(prompt.checks) if c["verifier"] == "edit"}
        outcomes: dict[int, Outcome] = {}
        if questions:
            answers, error = self._try(self.answer, image, [c["question"] for c in questions.values()])
            for place, (n, check) in enumerate(questions.items()):
                outcomes[n] = question_outcome(check, (answers or {}).get(place), error)
        if edits:
            ratings, error = self._try(self.rate, prompt, image)
            outcomes |= {n: edit_outcome(c, ratings, error) for n, c in edits.items()}
        return outcomes

    def answer(self, image: bytes, questions: Sequence[str]) -> dict[int, str]:
        """{place of a question: "yes" | "no"}. Errors: as in `Endpoint.ask`."""
        listed = "\n".join(f"{n}. {q}" for n, q in enumerate(questions))
        content = [{"type": "text", "text": f"{ASK}\n{listed}"}, image_part(image)]
        reply = self.endpoint.ask([{"role": "user", "content": content}], ANSWERS)
        return {a["id"]: a["answer"] for a in reply["answers"]}

    def rate(self, prompt: Prompt, image: bytes) -> dict[str, float]:
        """Four ratings of an edit, from 0 to 10. Errors: as in `Endpoint.ask`."""
        pictures = [image_part(b) for b in (*prompt.reference_bytes(), image)]
        content = [{"type": "text", "text": RATE.format(prompt.text)}, *pictures]
        return self.endpoint.ask([{"role": "user", "content": content}], RATINGS)

    @staticmethod
    def _try(call: Any, *arguments: Any) -> tuple[Any, str | None]:
        try:
            return call(*arguments), None
        except Unanswered as error:
            return None, str(error)


@dataclass(frozen=True)
class OwnJudge(Judge):
    """A judge of your own: an object with the methods `answer` and `rate` in place of the endpoint's.

    answer(image, questions) returns {place of a question: "yes" | "no"}; rate(instruction, references, image) the four
    ratings of `RATE`, from 0 to 10. One that raises `flywheel.core.endpoint.Unanswered` costs that picture's checks.
    """

    endpoint: Any

    def answer(self, image: bytes, questions: Sequence[str]) -> dict[int, str]:
        """See `Judge.answer`."""
        return dict(self.endpoint.answer(image, questions))

    def rate(self, prompt: Prompt, image: bytes) -> dict[str, float]:
        """See `Judge.rate`."""
        return dict(self.endpoint.rate(prompt.text, prompt.reference_bytes(), image))


def judge_with(judge: Judge | None, suite: Sequence[Prompt], images: Sequence[bytes]) -> list[dict[int, Outcome]]:
    """The outcomes of the judged checks; without a judge they are not applied, and their evidence says why."""
    if judge is not None:
        return judge.outcomes(suite, images)
    return [{n: _unjudged(c) for n, c in enumerate(p.checks) if c["verifier"] in JUDGED} for p in suite]


def _unjudged(check: Mapping[str, Any]) -> Outcome:
    make = question_outcome if check["verifier"] == "question" else edit_outcome
    return make(check, None, UNCONFIGURED)
