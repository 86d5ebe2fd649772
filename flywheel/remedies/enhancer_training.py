"""Training the prompt enhancer's language model: SFT on reverse-engineered triples, then GRPO, both through `trl`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.files import given_file
from flywheel.remedies.enhancer import NEW_TOKENS, answer, messages, open_model, parse
from flywheel.remedies.enhancer_data import Example, degrade, load_examples, quotations
from flywheel.signals.suite import Prompt, load_suite

LONGEST = 120  # words: a longer answer rambles
_SILENT = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}


def fine_tune(
    model: str, data: Path, output: Path, *, steps: int, batch: int, lora: int, seed: int, learning_rate: float = 2e-4
) -> dict[str, float]:
    """SFT of a causal LM on the training set `data`; writes the whole model to `output`.

    The loss is taken on the answer alone: reasoning, then P_fine. `lora`: rank of the adapters, merged at the end; 0
    trains every weight. Returns {"first_loss", "last_loss"}. Errors: `UsageError`.
    """
    rows = [
        {"prompt": messages(e.short), "completion": [{"role": "assistant", "content": answer(e.reasoning, e.fine)}]}
        for e in _examples(data)
    ]
    network, tokenizer = open_model(model)
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    settings = SFTConfig(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=learning_rate,
        seed=seed,
        completion_only_loss=True,
        **_SILENT,
        **_device(),
    )
    trainer = SFTTrainer(
        network, settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=_lora(lora)
    )
    trainer.train()
    losses = _save(trainer, tokenizer, output, "loss")
    return {"first_loss": losses[0], "last_loss": losses[-1]}


@dataclass(frozen=True)
class Drawn:
    """Pictures as rewards: a frozen checkpoint draws the rewritten prompt, the original prompt's checks judge it.

    `prompts`: the RL remedy's prompts.jsonl; its text-to-image prompts are degraded to what a user would write.
    """

    checkpoint: Path
    prompts: Path
    seed: int = 0
    side: int | None = None  # pixels; default: the largest square trained at

    @cached_property
    def _sampler(self) -> Any:
        from training.sampling import Sampler

        return Sampler(self.checkpoint)

    def rows(self) -> list[dict[str, Any]]:
        """(short prompt, checks as JSON) of every prompt that can be drawn without references."""
        rng = random.Random(f"drawn/{self.seed}")
        found: list[Prompt] = [p for p in load_suite(self.prompts) if not p.references]
        shorts = [(p, degrade(p.text, rng)) for p in found]
        return [{"short": e.short if e else p.text, "checks": json.dumps(p.checks)} for p, e in shorts]

    def __call__(self, completions: Sequence[Any], checks: Sequence[str], **_: Any) -> list[float | None]:
        """Share of the checks that the picture of each answer passes; None for prompts without checks."""
        import io

        from PIL import Image

        from curation.verify.checks import verify
        from flywheel.core.scorer import Item

        texts = [parse(_said(c))[1] or "-" for c in completions]
        side = self.side or max(self._sampler.checkpoint.config["recipe"]["resolution"].values())
        wanted = [n for n, c in enumerate(checks) if c]
        rewards: list[float | None] = [None] * len(texts)
        if not wanted:
            return rewards
        drawn = self._sampler.sample([texts[n] for n in wanted], size=(side, side), seed=self.seed)
        items = []
        for n, picture in zip(wanted, drawn):
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "PNG")
            items.append(Item(image=buffer.getvalue(), caption=texts[n], task="t2i", references=()))
        for n, outcomes in zip(wanted, verify(items, [json.loads(checks[n]) for n in wanted])):
            applied = [o.passed for o in outcomes if o.passed is not None]
            rewards[n] = sum(applied) / len(applied) if applied else None
        return rewards

    @property
    def __name__(self) -> str:  # trl logs rewards by this name
        return "drawn"


def text_reward(completions: Sequence[Any], short: Sequence[str], **_: Any) -> list[float]:
    """Share of the request's quoted texts that the answer keeps letter by letter, less a half for invented ones."""
    out = []
    for completion, asked in zip(completions, short):
        wanted, made = quotations(asked), quotations(parse(_said(completion))[1])
        kept = sum(w in made for w in wanted) / len(wanted) if wanted else 1.0
        out.append(kept - 0.5 * any(m not in wanted for m in made))
    return out


def form_reward(completions: Sequence[Any], short: Sequence[str], **_: Any) -> list[float]:
    """One third each: it reasons first, it says something, it is as long as the request or longer, without rambling."""
    out = []
    for completion, asked in zip(completions, short):
        reasoning, said = parse(_said(completion))
        words = len(said.split())
        length = min(1.0, words / max(1, len(asked.split()))) if words <= LONGEST else 0.0
        out.append(((reasoning is not None) + bool(said) + length) / 3)
    return out


def reinforce(
    model: str,
    data: Path,
    output: Path,
    *,
    drawn: Drawn | None = None,
    steps: int,
    batch: int,
    lora: int,
    seed: int,
    new_tokens: int = NEW_TOKENS,
    learning_rate: float = 1e-5,
) -> dict[str, float]:
    """GRPO of a causal LM on the short prompts of `data`, and on those of `drawn`; writes the whole model to `output`.

    `batch`: answers per prompt, compared with each other. Returns {"first_reward", "last_reward"}.
    Errors: `UsageError`.
    """
    rows = [{"short": e.short, "checks": ""} for e in _examples(data)] + (drawn.rows() if drawn else [])
    network, tokenizer = open_model(model)
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    rewards: list[Callable[..., list[Any]]] = [text_reward, form_reward, *([drawn] if drawn else [])]
    settings = GRPOConfig(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=batch,
        num_generations=batch,
        max_completion_length=new_tokens,
        learning_rate=learning_rate,
        beta=0.01,
        seed=seed,
        **_SILENT,
        **_device(),
    )
    dataset = Dataset.from_list([{"prompt": messages(r["short"]), **r} for r in rows])
    trainer = GRPOTrainer(
        network, rewards, settings, train_dataset=dataset, processing_class=tokenizer, peft_config=_lora(lora)
    )
    trainer.train()
    seen = _save(trainer, tokenizer, output, "reward")
    return {"first_reward": seen[0], "last_reward": seen[-1]}


def _examples(data: Path) -> list[Example]:
    found = load_examples(given_file(data, "a train.jsonl, as a round with cases for the enhancer writes it"))
    if not found:
        raise UsageError(f"{data} has no examples: a pool with longer captions gives some")
    return found


def _lora(rank: int) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM") if rank else None


def _device() -> dict[str, bool]:
    import torch

    cuda = torch.cuda.is_available()
    return {"use_cpu": not cuda, "bf16": cuda}


def _save(trainer: Any, tokenizer: Any, output: Path, metric: str) -> list[float]:
    """Write the model, adapters merged, and its tokenizer; returns the metric of every step."""
    network = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(network, "merge_and_unload"):
        network = network.merge_and_unload()
    network.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return [float(line[metric]) for line in trainer.state.log_history if metric in line]


def _said(completion: Any) -> str:
    return completion if isinstance(completion, str) else completion[0]["content"]
