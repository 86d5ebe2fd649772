"""Frozen Qwen3-VL as condition encoder: it reads instruction and references; latents replace its visual tokens.

Prompt and image slots are laid out as the open 2.1 pipeline does (the checkpoint expects these tokens, not those of the
chat template): system prompt of the report, dropped from the states; then per reference a numbered slot; the caption.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from flywheel.core.errors import UsageError, first_line
from flywheel.core.torchvision_shim import declare_operators
from training.models.condition import NO_REFERENCES, batches
from training.models.pretrained import locate, require_finite_weights, weights_digest

SYSTEM = "<|im_start|>system\nComprehend and analyze the provided prompt.<|im_end|>\n"
SLOT = "<image{}><|vision_start|><|image_pad|><|vision_end|>"


def prompt(caption: str, references: int = 0) -> str:
    """The text that Qwen3-VL reads. An empty caption becomes a space; control tokens become plain text."""
    slots = " ".join(SLOT.format(i + 1) for i in range(references))
    text = caption.replace("<|", "< |") or " "
    return f"{SYSTEM}<|im_start|>user\n{slots}{text}<|im_end|>\n<|im_start|>assistant\n"


class Qwen3VL:
    """States are the last layer's output before the final norm, float32 on the CPU; the model stays where it is.

    `model`: `Qwen3VLForConditionalGeneration`; `processor`: its `Qwen3VLProcessor`.
    """

    reads_references = True

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self.dim = model.config.text_config.hidden_size
        self._system_tokens = len(processor.tokenizer(SYSTEM)["input_ids"])

    @classmethod
    def open(cls, name: str) -> Qwen3VL:
        """From a folder, a pipeline's folder or a hub tag, in the stored precision. Errors: `UsageError`."""
        declare_operators()
        from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor
        from transformers.utils import logging

        logging.disable_progress_bar()
        weights, texts = locate(name, "text_encoder"), locate(name, "processor")
        try:
            _check_kind(json.loads((weights / "config.json").read_text()))
            model = Qwen3VLForConditionalGeneration.from_pretrained(weights, local_files_only=True, dtype="auto")
            processor = Qwen3VLProcessor.from_pretrained(texts, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = first_line(error)
            raise UsageError(f"{name} is not a Qwen3-VL ({reason}): give another folder or tag") from error
        require_finite_weights(weights, model.state_dict().items())
        return cls(model, processor)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of weights, tokenizer, image processing and prompt."""
        tokenizer = self.processor.tokenizer.backend_tokenizer.to_str()
        images = json.dumps(self.processor.image_processor.to_dict(), sort_keys=True, default=str)
        return weights_digest(self.model, tokenizer, images, prompt("", 2))

    def lead(self, references: int) -> tuple[int, ...]:
        """Text tokens between each reference's slot and the one before it: the same for every caption."""
        ids = self.processor.tokenizer(prompt("", references))["input_ids"][self._system_tokens :]
        slots = [i for i, token in enumerate(ids) if token == self.processor.image_token_id]
        return tuple(b - a - 1 for a, b in zip([-1, *slots], slots))

    def to(self, device: torch.device) -> Self:
        """Compute on `device`; returns itself."""
        self.model.to(device)
        return self

    def encode(self, captions: Sequence[str], references: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Text states, float32 [L_i, dim] each, the references' slots left out; `references`: uint8 [R, 3, H, W] each.

        A caption's states are those of `lead`'s runs, then of the rest.
        """
        images = references if references is not None else [NO_REFERENCES] * len(captions)
        inputs = [self._inputs(*row) for row in zip(captions, images, strict=True)]
        encoded: dict[int, Tensor] = {}
        for seen in (False, True):  # texts alone, then those with references
            chosen = [row for row, pictures in enumerate(images) if bool(len(pictures)) is seen]
            for numbers, length in batches([inputs[row]["input_ids"].shape[1] for row in chosen]):
                rows = [chosen[number] for number in numbers]
                for row, hidden in zip(rows, self._before_the_norm(_together([inputs[row] for row in rows], length))):
                    ids = inputs[row]["input_ids"][0, self._system_tokens :]
                    states = hidden[self._system_tokens :][: len(ids)].float().cpu()
                    encoded[row] = states[ids != self.processor.image_token_id]
        return [encoded[row] for row in range(len(captions))]

    def _inputs(self, caption: str, pictures: Tensor) -> dict[str, Tensor]:
        """What the model reads for one row."""
        text = prompt(caption, len(pictures))
        if not len(pictures):
            ids = torch.tensor([self.processor.tokenizer(text)["input_ids"]])
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        shown = [Image.fromarray(p.permute(1, 2, 0).contiguous().numpy()) for p in pictures]
        return dict(self.processor(text=[text], images=shown, return_tensors="pt"))

    @torch.no_grad()
    def _before_the_norm(self, inputs: dict[str, Tensor]) -> Tensor:
        """The last layer's output [B, L, dim]; the last hidden state that transformers 5 returns is normed."""
        unnormed: list[Tensor] = []
        inner = self.model.model
        handle = inner.language_model.norm.register_forward_pre_hook(lambda _, inputs: unnormed.append(inputs[0]))
        try:
            inner(**{name: x.to(self.model.device) for name, x in inputs.items()}, use_cache=False)
        finally:
            handle.remove()
        return unnormed[0]


def _together(inputs: Sequence[dict[str, Tensor]], length: int) -> dict[str, Tensor]:
    """Rows as one batch, filled up to `length` tokens. Attention is causal: no token sees the fill, none is hidden."""
    fill = {"input_ids": 0, "attention_mask": 1, "mm_token_type_ids": 0}
    return {
        name: torch.cat(
            [pad(row[name], (0, length - row[name].shape[1]), value=fill[name]) if name in fill else row[name]
             for row in inputs]
        )
        for name in inputs[0]
    }  # fmt: skip


def _check_kind(config: dict[str, Any]) -> None:
    if config["model_type"] != "qwen3_vl":
        raise ValueError(f"its model_type is {config['model_type']}")
