"""Train the prompt enhancer's language model with `trl`: SFT on reverse-engineered triples, then GRPO."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.files import given_file
from flywheel.core.generator import Generator, Undrawn, png
from flywheel.generators import describe, open_generator
from flywheel.remedies.enhancer import NEW_TOKENS, answer, messages, open_model, parse
from flywheel.remedies.enhancer_data import Example, degrade, load_examples, quotations
from flywheel.signals.suite import load_suite
from training.run import require_finite, require_finite_tensors

LONGEST = 120  # words; longer answers count as rambling
_SILENT: dict[str, Any] = {
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "logging_steps": 1,
    "logging_nan_inf_filter": False,  # else a loss that is not a number is logged as 0
}


def fine_tune(
    model: str, data: Path, output: Path, *, steps: int, batch: int, lora: int, seed: int, learning_rate: float = 2e-4
) -> dict[str, float]:
    """SFT of a causal LM on the training set `data`; writes the full model to `output`.

    The loss covers the answer only: reasoning, then P_fine. lora: rank of the adapters, merged at the end; 0 trains
    all weights. Returns {"first_loss", "last_loss"}. Errors: `UsageError`, also for a loss or update that
    is not finite.
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
    trainer.add_callback(_stop_if_not_finite())
    trainer.train()
    losses = _save(trainer, tokenizer, output, "loss")
    return {"first_loss": losses[0], "last_loss": losses[-1]}


@dataclass(frozen=True)
class Drawn:
    """Reward: a frozen generator draws the rewritten prompt, and the checks of the original prompt judge the picture.

    prompts: prompts.jsonl of the RL remedy; its text-to-image prompts are degraded to what a user would write.
    """

    checkpoint: Path
    prompts: Path
    side: int  # pixels
    seed: int = 0

    @cached_property
    def _generator(self) -> Generator:
        return open_generator(describe(self.checkpoint))

    def rows(self) -> list[dict[str, Any]]:
        """Short prompt and checks (JSON) of every prompt without references: {"short", "checks"}."""
        rng = random.Random(f"drawn/{self.seed}")
        shorts = [(p, degrade(p.text, rng)) for p in load_suite(self.prompts) if not p.references]
        return [{"short": e.short if e else p.text, "checks": json.dumps(p.checks)} for p, e in shorts]

    def __call__(self, completions: Sequence[Any], checks: Sequence[str], **_: Any) -> list[float | None]:
        """Share of the checks that the picture of each answer passes; None if no check could be applied."""
        from curation.verify.checks import verify
        from flywheel.core.scorer import Item

        texts = [parse(_text(c))[1] or "-" for c in completions]
        wanted = [n for n, c in enumerate(checks) if c]
        rewards: list[float | None] = [None] * len(texts)
        if not wanted:
            return rewards
        drawn = self._generator.draw(
            [texts[n] for n in wanted], seeds=[self.seed] * len(wanted), size=(self.side, self.side)
        )
        there = [(n, x) for n, x in zip(wanted, drawn) if not isinstance(x, Undrawn)]
        items = [Item(image=png(x), caption=texts[n], task="t2i", references=()) for n, x in there]
        wanted = [n for n, _ in there]
        for n, outcomes in zip(wanted, verify(items, [json.loads(checks[n]) for n in wanted])):
            applied = [o.passed for o in outcomes if o.passed is not None]
            rewards[n] = sum(applied) / len(applied) if applied else None
        return rewards

    @property
    def __name__(self) -> str:  # trl logs rewards by this name
        return "drawn"


def text_reward(completions: Sequence[Any], short: Sequence[str], **_: Any) -> list[float]:
    """Share of the request's quoted texts that the answer keeps exactly, minus 0.5 if it invents any."""
    out = []
    for completion, request in zip(completions, short):
        wanted, quoted = quotations(request), quotations(parse(_text(completion))[1])
        kept = sum(w in quoted for w in wanted) / len(wanted) if wanted else 1.0
        out.append(kept - 0.5 * any(q not in wanted for q in quoted))
    return out


def form_reward(completions: Sequence[Any], short: Sequence[str], **_: Any) -> list[float]:
    """One third each: the answer reasons, it has a prompt, the prompt is as long as the request and not rambling."""
    out = []
    for completion, request in zip(completions, short):
        reasoning, prompt = parse(_text(completion))
        words = len(prompt.split())
        length = min(1.0, words / max(1, len(request.split()))) if words <= LONGEST else 0.0
        out.append(((reasoning is not None) + bool(prompt) + length) / 3)
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
    """GRPO of a causal LM on the short prompts of `data` and of `drawn`; writes the full model to `output`.

    batch: answers per prompt, which are compared with each other. Returns {"first_reward", "last_reward"}.
    Errors: `UsageError`, also for a loss or update that is not finite.
    """
    rows = [{"short": e.short, "checks": ""} for e in _examples(data)] + (drawn.rows() if drawn else [])
    network, tokenizer = open_model(model)
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    rewards: list[Any] = [text_reward, form_reward, *([drawn] if drawn else [])]
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
    trainer.add_callback(_stop_if_not_finite())
    trainer.train()
    rewards_ = _save(trainer, tokenizer, output, "reward")
    return {"first_reward": rewards_[0], "last_reward": rewards_[-1]}


def _examples(data: Path) -> list[Example]:
    examples = load_examples(given_file(data, "a train.jsonl, as a round with cases for the enhancer writes it"))
    if not examples:
        raise UsageError(f"{data} has no examples: use a pool with longer captions")
    return examples


def _lora(rank: int) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM") if rank else None


def _device() -> dict[str, Any]:
    import torch

    cuda = torch.cuda.is_available()
    return {"use_cpu": not cuda, "bf16": cuda}


def _stop_if_not_finite() -> Any:
    """A callback that raises `UsageError` at the first loss or gradient norm that is not finite."""
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in (logs or {}):
                require_finite(state.global_step, float(logs["loss"]), float(logs.get("grad_norm") or 0.0))

    return Stop()


def _save(trainer: Any, tokenizer: Any, output: Path, metric: str) -> list[float]:
    """Write the model, with merged adapters, and its tokenizer; returns the metric of each step.

    Errors: `UsageError` if a weight is not finite: nothing is written then.
    """
    network = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(network, "merge_and_unload"):
        network = network.merge_and_unload()
    require_finite_tensors(trainer.state.global_step, "weights", dict(network.named_parameters()))
    network.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return [float(line[metric]) for line in trainer.state.log_history if metric in line]


def _text(completion: Any) -> str:
    """The text of a completion, which `trl` gives as text or as a chat message."""
    return completion if isinstance(completion, str) else completion[0]["content"]
