"""The prompt enhancer: rewrites a short or sloppy prompt into the wording of training captions.

Three backends with one interface, `Rewriter`: rules, a local causal language model, an OpenAI-compatible endpoint,
whose model may see the references of an edit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from flywheel.core.errors import UsageError
from flywheel.presets import Enhancer

INSTRUCTION = (
    "Rewrite the request into a complete description of the picture. Add what it leaves open: style, light, texture, "
    "layout, background. Keep every quoted text letter by letter."
)
EDIT_INSTRUCTION = (
    "Rewrite the request to edit the pictures into a complete instruction. Look at the pictures: name what changes, "
    "where it is and how it looks afterwards, and name what stays as it is. Keep every quoted text letter by letter."
)
NEW_TOKENS = 256
_REASONING = re.compile(r"^\s*<think>(.*?)</think>\s*", re.DOTALL)
_NUMBERS = {"1": "one", "2": "two", "3": "three", "4": "four", "5": "five"}
_FILLER = re.compile(
    r"^\s*(please|pls|can you|could you|i want|i need|give me|make me|draw me|draw|paint|generate|create|show me)"
    r"\b[\s,:]*",
    re.IGNORECASE,
)
_QUOTES = re.compile(r"[“”„«»「」『』]")


class Rewriter(Protocol):
    """A better prompt, or None if nothing changes. pictures: encoded references of an edit, for those that see them."""

    def __call__(self, prompt: str, pictures: Sequence[bytes] = ()) -> str | None: ...


def load_enhancer(settings: Enhancer, cache: Path | None = None) -> Rewriter:
    """The enhancer of the settings; `cache` keeps the answers of an endpoint. Errors: `UsageError`."""
    if settings.backend.startswith(("http://", "https://")):
        from flywheel.core.endpoint import Endpoint

        return Remote(Endpoint(settings.backend, settings.model, settings.key_variable, cache=cache), settings.sees)
    if settings.sees:
        raise UsageError("enhancer.sees shows pictures to the model of an endpoint: set backend to http(s)://…/v1")
    return enhance if settings.backend == "rules" else LanguageModel(settings.backend)


def enhance(prompt: str, pictures: Sequence[bytes] = ()) -> str | None:
    """Rewrite the prompt by rules; None if no rule changes it.

    Rules: straight quotes, no request phrases such as "please draw", digits before a word written out, single spaces.
    """
    text = _QUOTES.sub('"', prompt)
    while (stripped := _FILLER.sub("", text)) != text:
        text = stripped
    parts = re.split(r'("[^"]*")', text)  # quoted text is content and stays as it is
    parts[::2] = [re.sub(r"\b([1-5])\b(?=\s+[a-z])", lambda m: _NUMBERS[m[1]], p) for p in parts[::2]]
    text = re.sub(r"\s+", " ", "".join(parts)).strip()
    return text if text and text != prompt else None


def messages(prompt: str) -> list[dict[str, str]]:
    """Chat messages that ask a language model to enhance a prompt."""
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": prompt}]


def answer(reasoning: str, fine: str) -> str:
    """The answer that a language model is trained to give."""
    return f"<think>{reasoning}</think>\n{fine}"


def parse(answer_: str) -> tuple[str | None, str]:
    """(reasoning, enhanced prompt) of an answer; the reasoning is None if the answer has none."""
    match = _REASONING.match(answer_)
    return (match[1], answer_[match.end() :].strip()) if match else (None, answer_.strip())


def open_model(name: str) -> tuple[Any, Any]:
    """(causal LM, its tokenizer) of a folder or hub tag. Errors: `UsageError`, also if a weight is not finite."""
    from flywheel.core.torchvision_shim import declare_operators

    declare_operators()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.models.pretrained import require_finite_weights

    try:
        model, tokenizer = AutoModelForCausalLM.from_pretrained(name).eval(), AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name} is not a causal LM: pass a folder or a hub tag ({error})") from error
    require_finite_weights(name, model.named_parameters())
    return model, tokenizer


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model from a folder or a hub tag; decodes greedily, so that a prompt has one answer."""

    name: str

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        return open_model(self.name)

    def __call__(self, prompt: str, pictures: Sequence[bytes] = ()) -> str | None:
        import torch

        model, tokenizer = self._loaded
        inputs = tokenizer.apply_chat_template(
            messages(prompt), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            out = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        text = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        better = parse(text)[1]
        return better if better and better != prompt else None


@dataclass(frozen=True)
class Remote:
    """A model behind an OpenAI-compatible endpoint; `sees`: it gets the references of edits."""

    endpoint: Any  # flywheel.core.endpoint.Endpoint
    sees: bool = False

    def __call__(self, prompt: str, pictures: Sequence[bytes] = ()) -> str | None:
        schema = {
            "type": "object",
            "properties": {"reasoning": {"type": "string"}, "prompt": {"type": "string", "minLength": 1}},
            "required": ["reasoning", "prompt"],
            "additionalProperties": False,
        }
        from flywheel.core.endpoint import Rejected, Unanswered, image_part

        asked: list[dict[str, Any]] = [*messages(prompt)]
        if shown := self.sees and bool(pictures):
            parts = [{"type": "text", "text": prompt}, *map(image_part, pictures)]
            asked = [{"role": "system", "content": EDIT_INSTRUCTION}, {"role": "user", "content": parts}]
        try:
            better = self.endpoint.ask(asked, schema)["prompt"].strip()
        except Unanswered as error:
            advice = "run again later"
            if shown and isinstance(error, Rejected):
                advice = "give a model that accepts pictures, or set enhancer.sees = false"
            raise UsageError(f"the prompt enhancer does not answer, {advice}: {error}") from error
        return better if better and better != prompt else None
