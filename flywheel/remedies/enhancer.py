"""The prompt enhancer: rewrites a short or sloppy prompt into the wording that training captions use.

Three backends, one interface, `(prompt) → better prompt, or None where there is nothing to change`: rules, a local
causal language model, any OpenAI-compatible endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.presets import Enhancer

INSTRUCTION = (
    "Rewrite the request into a complete description of the picture. Add what it leaves open: style, light, texture, "
    "layout, background. Keep every quoted text letter by letter."
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


def load_enhancer(settings: Enhancer, cache: Path | None = None) -> Callable[[str], str | None]:
    """The enhancer that the settings name; an endpoint's answers are kept in `cache`. Errors: `UsageError`."""
    if settings.backend == "rules":
        return enhance
    if settings.backend.startswith(("http://", "https://")):
        from flywheel.core.endpoint import Endpoint

        return Remote(Endpoint(settings.backend, settings.model, settings.key_variable, cache=cache))
    return LanguageModel(settings.backend)


def enhance(prompt: str) -> str | None:
    """The prompt by rules, or None where no rule changes anything.

    Rules: straight quotes, requests stripped to the description, digits before a noun written out, blanks collapsed.
    """
    text = _QUOTES.sub('"', prompt)
    while (stripped := _FILLER.sub("", text)) != text:
        text = stripped
    parts = re.split(r'("[^"]*")', text)  # quoted text is content: it stays as it is
    parts[::2] = [re.sub(r"\b([1-5])\b(?=\s+[a-z])", lambda m: _NUMBERS[m[1]], p) for p in parts[::2]]
    text = re.sub(r"\s+", " ", "".join(parts)).strip()
    return text if text and text != prompt else None


def messages(prompt: str) -> list[dict[str, str]]:
    """The chat that asks a language model to enhance a prompt."""
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": prompt}]


def answer(reasoning: str, fine: str) -> str:
    """What a language model should answer."""
    return f"<think>{reasoning}</think>\n{fine}"


def parse(answer_: str) -> tuple[str | None, str]:
    """(reasoning, enhanced prompt) of an answer; the reasoning is None where the answer has none."""
    found = _REASONING.match(answer_)
    return (found[1], answer_[found.end() :].strip()) if found else (None, answer_.strip())


def open_model(name: str) -> tuple[Any, Any]:
    """(causal LM, its tokenizer) in a folder or under a hub tag. Errors: `UsageError`."""
    from flywheel.core.torchvision_shim import declare_operators

    declare_operators()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        return AutoModelForCausalLM.from_pretrained(name).eval(), AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name} is no causal LM: give a folder or a hub tag ({error})") from error


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model in a folder or under a hub tag; greedy, so that a prompt has one answer."""

    name: str

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        return open_model(self.name)

    def __call__(self, prompt: str) -> str | None:
        import torch

        model, tokenizer = self._loaded
        asked = tokenizer.apply_chat_template(
            messages(prompt), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            out = model.generate(**asked, max_new_tokens=NEW_TOKENS, do_sample=False)
        said = tokenizer.decode(out[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        better = parse(said)[1]
        return better if better and better != prompt else None


@dataclass(frozen=True)
class Remote:
    """A model behind an OpenAI-compatible endpoint."""

    endpoint: Any  # flywheel.core.endpoint.Endpoint

    def __call__(self, prompt: str) -> str | None:
        schema = {
            "type": "object",
            "properties": {"reasoning": {"type": "string"}, "prompt": {"type": "string", "minLength": 1}},
            "required": ["reasoning", "prompt"],
            "additionalProperties": False,
        }
        from flywheel.core.endpoint import Unanswered

        try:
            better = self.endpoint.ask(messages(prompt), schema)["prompt"].strip()
        except Unanswered as error:
            raise UsageError(f"the prompt enhancer gives no answer, run again later: {error}") from error
        return better if better and better != prompt else None
