"""The RL loop: draw prompts, roll out, score, optimise, check held-out proxies.

An interrupted run resumes to the same bits, because every draw is a function of (seed, step). Several processes share
the prompts of a step and the held-out prompts; each has all weights, and an update sums their gradients.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.mirror import fetched
from flywheel.core.scorer import Item
from training import checkpoint as checkpoints
from training.checkpoint import Checkpoint
from training.distributed import World, joined
from training.extension import loop_extension
from training.lora import LoRA, identified
from training.losses import grpo
from training.prompts import Condition, ConditionReader, RolloutPrompt, category, draw, picture, prompts_digest, spread
from training.rewards import Request, Rewards, RewardsLost, Scores, not_finite, numbers, per_picture
from training.rl.balance import Balance, check, mix, observe
from training.rl.figures import faults, reward_line, update_line
from training.rl.objective import row_losses
from training.rl.policy import Policy
from training.rl.recipe import RLRecipe
from training.rl.rollout import PromptGroup, require_usable, roll_out
from training.run import (
    Progress,
    finished,
    last_checkpoint,
    require_finite,
    require_finite_tensors,
    step_name,
    take_steps,
)
from training.sampling import Sampler
from training.saving import copied, taken_by_first, write
from training.state import adamw, copies, falling, load_moments, moments, move_ema, set_rate

log = logging.getLogger(__name__)
PACE = ("steps", "learning_rate", "final_learning_rate")  # what may differ in a run that goes on from another


class NothingToLearn(UsageError):
    """No reward tells the pictures of a prompt apart: the run stops with a checkpoint."""


def train(
    out_dir: Path,
    prompts: Sequence[RolloutPrompt],
    held_out: Sequence[RolloutPrompt],
    recipe: RLRecipe,
    rewards: Rewards,
    *,
    init: Path,
    seed: int = 0,
    extend: Path | None = None,
    progress: Progress | None = None,
) -> Checkpoint:
    """Train `init`'s EMA weights for `recipe.steps` steps and return the final checkpoint, a plain model like `init`.

    `extend`: a run, in a folder of its own, to go on from, to more `steps` or at another learning rate.

    `prompts` are trained on, `held_out` only monitored; `rewards` scores both. Resumes from the last checkpoint in
    `out_dir`. Errors: `UsageError` for another run's folder, unusable prompts, rewards and recipes, or a loss or update
    that is not finite; after a checkpoint `RewardsLost` when scoring is unavailable, and `NothingToLearn` after
    `recipe.flat_steps` steps without a group to learn from.

    Several processes, started by torchrun with the same arguments, train one model, up to rounding as one process does;
    the first one writes and reports. Their number may change from one start to the next.
    """
    out_dir, parent, lora = Path(out_dir), Checkpoint(fetched(init)), LoRA.of(recipe)
    require_usable(prompts, held_out, recipe, rewards)
    values, longer = recipe.to_dict(), None
    if extend is not None:
        longer = loop_extension(extend, "rl", values, PACE, seed=seed, parent=parent)
    run = digest(
        "rl",
        identified(values, "lora_alpha", "lora_targets"),
        prompts_digest(prompts),
        prompts_digest(held_out),
        rewards.names,
        seed,
        parent.fingerprint,
        *(longer.origin if longer else ()),
    )
    final = finished(out_dir, run)
    if final is not None:
        return final
    with joined() as world:
        world.by_first(lambda: checkpoints.sweep(out_dir))
        last = last_checkpoint(out_dir, run) or (longer.checkpoint if longer else None)
        trainer = _Trainer(parent, recipe, rewards, seed, last, prompts, held_out, world)

        def take(name: str, closing: Mapping[str, Any]) -> Callable[[], object]:
            config = {**parent.config, "run": run, "seed": seed, "steps": recipe.steps, "init": parent.fingerprint}
            config |= {"step": trainer.done, "rl": values, "rl_state": trainer.state(), **closing}
            config |= {"loop": "rl", "lora": lora and lora.to_dict(), "lineage": longer.lineage if longer else []}
            tensors = trainer.tensors()
            for part in ("model", "ema"):
                require_finite_tensors(trainer.done, "weights", tensors[part])
            return lambda: write(out_dir / name, tensors, trainer.sampler.autoencoder, config)

        def save(name: str, **closing: Any) -> Callable[[], object]:
            return taken_by_first(world, partial(take, name, closing))

        world.by_first(save(checkpoints.FINAL, **_steps(trainer, out_dir, save, progress)))
        return Checkpoint(out_dir / checkpoints.FINAL)


def _steps(
    trainer: _Trainer, out_dir: Path, save: Callable[..., Callable[[], object]], progress: Progress | None
) -> dict[str, Any]:
    """Take the steps that are left; returns the figures of the end. What stops them leaves a checkpoint."""
    recipe, world, every = trainer.recipe, trainer.world, trainer.recipe.checkpoint_every
    try:
        take_steps(trainer, out_dir, recipe.steps, save, checkpoint_every=every, progress=progress, world=world)
        if trainer.flat >= recipe.steps:
            trainer.warn(f"all {recipe.steps} steps were flat: no reward told pictures apart, and nothing was learnt")
        _, closing = trainer.check()
        return closing
    except NothingToLearn:
        world.by_first(save(step_name(trainer.done)))
        raise
    except RewardsLost as error:
        if trainer.done:
            world.by_first(save(step_name(trainer.done)))
        raise RewardsLost(
            f"{error}: {trainer.done} of {recipe.steps} steps are kept in {out_dir}; "
            "bring the rewards back and run the same command again"
        ) from error


class _Trainer:
    """The policy, its rewards and prompts, and what changes from step to step."""

    def __init__(
        self,
        parent: Checkpoint,
        recipe: RLRecipe,
        rewards: Rewards,
        seed: int,
        last: Checkpoint | None,
        prompts: Sequence[RolloutPrompt],
        held_out: Sequence[RolloutPrompt],
        world: World,
    ) -> None:
        self.recipe, self.rewards, self.seed, self.world = recipe, rewards, seed, world
        self.device = device = world.device
        self.sampler = Sampler(parent, device)
        if not self.sampler.model.config.cacheable:
            raise UsageError(f"{parent.path} recomputes its condition at every step: give a block-causal model for RL")
        self.policy = Policy(self.sampler.model, lora=LoRA.of(recipe), seed=seed)
        self.reader = ConditionReader(
            self.sampler.encoder, self.sampler.autoencoder, self.sampler.text_tokens, recipe.side, device
        )
        self.kinds: dict[str, list[RolloutPrompt]] = {}
        for prompt in prompts:
            self.kinds.setdefault(category(prompt), []).append(prompt)
        self.watched = spread(held_out, recipe.held_out)
        self.base = {kind: len(rows) / len(prompts) for kind, rows in self.kinds.items()}
        tokens = self.reader.shape[1] * self.reader.shape[2]
        self.times = torch.from_numpy(self.sampler.times(recipe.sampling_steps, tokens)).float().to(device)
        named = self.policy.trainable
        self.optimizer = adamw(named, recipe.learning_rate, recipe.weight_decay, recipe.betas)
        self.balance, self.done, self.flat = Balance(), 0, 0  # flat: steps in a row without a group to learn from
        self.proxies = {name: recipe.proxy(name, rewards.names) for name in recipe.rewards}
        for name, proxy in self.proxies.items():
            if proxy is None:
                self.warn(f"no other verifier watches reward {name}: name one in the recipe's proxies")
        self.since_check: dict[str, list[float]] = {name: [] for name in recipe.rewards}
        if last is None:
            self.ema = copies(named)
        else:
            self.policy.load(last.tensors("trainable"))
            self.ema = {name: t.to(device) for name, t in last.tensors("trainable_ema").items()}
            load_moments(self.optimizer, named, last.tensors("optimizer"))
            state = last.config["rl_state"]
            self.balance, self.since_check = Balance.from_dict(state["balance"]), state["since_check"]
            self.done, self.flat = last.step, state["flat"]

    def warn(self, sentence: str) -> None:
        """Log it once, of several processes that find the same."""
        if self.world.first:
            log.warning(sentence)

    def state(self) -> dict[str, Any]:
        return {"balance": self.balance.to_dict(), "since_check": dict(self.since_check), "flat": self.flat}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """A copy of everything that changes with a step."""
        trainable = self.policy.trainable
        state: dict[str, Mapping[str, Tensor]] = {
            "trainable": trainable,
            "trainable_ema": self.ema,
            "optimizer": moments(self.optimizer, trainable),
        }
        return {"model": self.policy.merged(), "ema": self.policy.merged(self.ema), **copied(state)}

    def one_step(self) -> dict[str, Any]:
        """One step, after a check of the proxies where one is due. Nothing changes before the rewards have come."""
        recipe, step, balance = self.recipe, self.done, self.balance
        self._require_range()
        checked: dict[str, Any] = {}
        if step % recipe.check_every == 0:
            balance, checked = self.check()
        shares = mix(balance, self.base, recipe.mix_floor)
        drawn = draw(self.kinds, shares, recipe.prompts, self.seed, "rl prompts", step)
        groups, values, broken = self._roll_outs(drawn, step)
        weights = torch.tensor(
            [[recipe.weight(category(p), n) * balance.factor(n) for n in recipe.rewards] for p in drawn],
            dtype=torch.float64,
        )
        advantages = grpo.group_advantages(values, weights, min_range=recipe.min_range)
        for fault in faults(recipe.rewards, values, broken):
            self.warn(f"step {step + 1}: {fault}")
        factors = [balance.factor(name) for name in recipe.rewards]
        line = {"step": step + 1, **checked, **reward_line(recipe.rewards, values, advantages, weights, factors)}
        line |= {"mix": {k: round(v, 6) for k, v in shares.items()}, **self._optimise(groups, advantages)}
        kept = advantages.kept.tolist()
        self.flat = 0 if any(kept) else self.flat + 1
        self.balance = observe(balance, [(category(p), k) for p, k in zip(drawn, kept, strict=True)])
        for i, name in enumerate(recipe.rewards):
            new = [v for v in values[:, :, i].nanmean(1).tolist() if math.isfinite(v)]
            self.since_check[name] = new if checked else self.since_check[name] + new
        self.done = step + 1
        return line

    def _require_range(self) -> None:
        """Errors: `NothingToLearn` after `flat_steps` flat steps in a row."""
        if self.recipe.flat_steps and self.flat >= self.recipe.flat_steps:
            raise NothingToLearn(
                f"in {self.flat} steps in a row, no reward told the pictures of a prompt apart by "
                f"{self.recipe.min_range} or more: there is nothing to learn. Train on prompts of which some pictures "
                "pass and some fail, or give another reward"
            )

    # Roll-outs ------------------------------------------------------------------------------------------------------
    def _roll_outs(
        self, drawn: Sequence[RolloutPrompt], step: int
    ) -> tuple[dict[int, PromptGroup], Tensor, Counter[str]]:
        """Groups of this process's prompts by slot; rewards of all [P, G, R], and how many are `not_finite`, by name.

        A group's pictures are scored while the next group is drawn.
        """
        recipe, groups = self.recipe, dict[int, PromptGroup]()

        def scored() -> dict[int, tuple[list[list[float]], Counter[str]]]:
            own, futures = self.world.own(range(len(drawn))), {}
            conditions = self.reader.read([drawn[slot] for slot in own])
            with ThreadPoolExecutor(self.rewards.workers) as pool:
                for slot, read in zip(own, conditions, strict=True):
                    groups[slot] = group = self._roll_out(drawn[slot], read, step, slot)
                    pictures = self.reader.pictures(group.latents)
                    futures[slot] = self._submit(pool, [drawn[slot]] * recipe.group, pictures)
                rows = {slot: future.result() for slot, future in futures.items()}
            return {slot: (numbers(r, recipe.rewards, recipe.group), not_finite(r)) for slot, r in rows.items()}

        found = self.world.merged(scored)
        values = torch.tensor([found[slot][0] for slot in sorted(found)], dtype=torch.float64)
        return groups, values, sum((counts for _, counts in found.values()), Counter())

    def _roll_out(
        self, prompt: RolloutPrompt, conditions: tuple[Condition, Condition], step: int, slot: int
    ) -> PromptGroup:
        recipe = self.recipe
        noises = [
            [self.reader.noise(self.seed, "rl", step, slot, n, k) for n in range(recipe.group)]
            for k in range(1 + recipe.window[1])
        ]
        noise = torch.stack([torch.stack(row) for row in noises]).to(self.device)
        group = roll_out(self.policy.model, prompt, conditions, noise[0], noise[1:], self.times, recipe)
        require_finite_tensors(step, "pictures", {prompt.prompt_id: group.latents})
        return group

    def _submit(
        self, pool: ThreadPoolExecutor, prompts: Sequence[RolloutPrompt], pictures: Sequence[bytes]
    ) -> Future[Sequence[Scores]]:
        requests = [
            Request(Item(image, p.text, p.task, p.reference_bytes()), p.checks)
            for p, image in zip(prompts, pictures, strict=True)
        ]
        return pool.submit(lambda: per_picture(self.rewards.score(requests), len(requests)))

    # Optimisation ---------------------------------------------------------------------------------------------------
    def _optimise(self, groups: Mapping[int, PromptGroup], advantages: grpo.Advantages) -> dict[str, Any]:
        """Take `inner_steps` optimiser steps on the groups that are not flat; returns metrics over all of them.

        groups: this process's, by slot.
        """
        recipe, world = self.recipe, self.world
        set_rate(self.optimizer, recipe.learning_rate * falling(recipe.final_learning_rate, self.done, recipe.steps))
        kept = [(g, advantages.total[i].to(self.device)) for i, g in groups.items() if advantages.kept[i]]
        total = int(world.sum(sum(len(g.t) for g, _ in kept)))
        ratios: list[list[Tensor]] = []  # of each inner step
        kls: list[Tensor] = []
        losses: list[float] = []
        norms: list[float] = []
        for _ in range(recipe.inner_steps if total else 0):
            self.optimizer.zero_grad(set_to_none=True)
            parts = []
            ratios.append([])
            for group, advantage in kept:
                for part, ratio, kl in row_losses(self.policy, group, advantage, recipe):
                    (part.sum() / total).backward()
                    parts.append(part.detach().sum() / total)
                    ratios[-1].append(ratio)
                    kls.append(kl)
            world.add_gradients(self.policy.trainable.values())
            norms.append(float(torch.nn.utils.clip_grad_norm_(self.policy.trainable.values(), recipe.gradient_clip)))
            losses.append(world.sum(float(sum(parts))))
            require_finite(self.done + 1, losses[-1], norms[-1])
            self.optimizer.step()
            move_ema(self.ema, self.policy.trainable, recipe.ema)
        line = {"loss": statistics.fmean(losses) if losses else 0.0, "grad_norm": norms[0] if norms else 0.0}
        line["lr"] = self.optimizer.param_groups[0]["lr"]
        if not ratios:
            return line
        rows = ([r for inner in ratios for r in inner], ratios[0], [g.gap for g, _ in kept], kls)
        return line | update_line(*map(self._everywhere, rows), clip=recipe.clip)

    def _everywhere(self, rows: Sequence[Tensor]) -> Tensor:
        """The rows [N] of all processes, on the CPU."""
        return torch.cat(self.world.each(lambda: torch.cat([torch.zeros(0), *(part.cpu() for part in rows)])))

    # Held-out proxies -----------------------------------------------------------------------------------------------
    def check(self) -> tuple[Balance, dict[str, Any]]:
        """Score held-out prompts with the EMA weights, as deployed; returns the next balance and metrics.

        Changes nothing.
        """
        if not self.watched:
            return self.balance, {}
        recipe = self.recipe
        guided = recipe.cfg if recipe.guidance != "none" else 1.0
        with self.policy.holding(self.ema):
            rows = self._held_out_scores(guided)
            plain = rows if guided == 1.0 else self._held_out_scores(1.0)
        proxies = {}
        for name in recipe.rewards:
            proxy = self.proxies[name]
            values = {prompt: row[proxy] for prompt, row in rows.items()} if proxy else {}
            proxies[name] = {k: v for k, v in values.items() if math.isfinite(v)}
        means = {n: statistics.fmean(v) if v else None for n, v in self.since_check.items()}
        balance, decided = check(self.balance, means, proxies, recipe.tolerance)
        return balance, {
            "held_out": self._means(rows),
            "held_out_without_cfg": self._means(plain),
            "balance": decided,
            "watched_by": self.proxies,
        }

    def _held_out_scores(self, cfg: float) -> dict[str, dict[str, float]]:
        """{prompt: {reward: score}} of one picture per held-out prompt, from the same noise at every check."""
        names = self.rewards.names

        def scored() -> dict[str, dict[str, float]]:
            own = self.world.own(self.watched)
            rows = numbers(self._draw_held_out(own, cfg), names, len(own)) if own else []
            return {p.prompt_id: dict(zip(names, row, strict=True)) for p, row in zip(own, rows, strict=True)}

        found = self.world.merged(scored)
        return {p.prompt_id: found[p.prompt_id] for p in self.watched}

    def _draw_held_out(self, prompts: Sequence[RolloutPrompt], cfg: float) -> list[Scores]:
        noise = torch.stack([self.reader.noise(self.seed, "held out", p.prompt_id) for p in prompts])
        shown = [[picture(p, i) for i in range(len(p.references))] for p in prompts]
        steps = self.recipe.sampling_steps
        latents = self.sampler.latents([p.text for p in prompts], shown, noise=noise, steps=steps, cfg=cfg)
        require_finite_tensors(self.done, "pictures", {"of the held-out prompts": latents})
        with ThreadPoolExecutor(self.rewards.workers) as pool:
            futures = [
                self._submit(pool, prompts[i : i + 16], self.reader.pictures(latents[i : i + 16]))
                for i in range(0, len(prompts), 16)
            ]
            return [row for f in futures for row in f.result()]

    def _means(self, rows: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
        """Mean of each reward over the pictures that it scored; None where it scored none."""
        scored = {n: [row[n] for row in rows.values() if math.isfinite(row[n])] for n in self.rewards.names}
        return {name: statistics.fmean(kept) if kept else None for name, kept in scored.items()}
