"""The RL loop: draw prompts, roll out, score, optimise, check held-out proxies.

An interrupted run resumes to the same bits, because every draw is a function of (seed, step).
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
from training.distributed import choose_device
from training.extension import loop_extension
from training.lora import LoRA, identified
from training.losses import grpo
from training.prompts import ConditionReader, RolloutPrompt, category, draw, picture, prompts_digest, spread
from training.rewards import Request, Rewards, RewardsLost, Scores, not_finite, numbers, per_picture
from training.rl.balance import Balance, check, mix, observe
from training.rl.policy import Policy
from training.rl.recipe import RLRecipe
from training.rl.rollout import PromptGroup, objective_velocity, require_usable, roll_out
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
    checkpoints.sweep(out_dir)
    last = last_checkpoint(out_dir, run) or (longer.checkpoint if longer else None)
    trainer = _Trainer(parent, recipe, rewards, seed, last, prompts, held_out, choose_device())

    def save(name: str, **closing: Any) -> Checkpoint:
        config = {**parent.config, "run": run, "seed": seed, "steps": recipe.steps, "init": parent.fingerprint}
        config |= {"step": trainer.done, "rl": values, "rl_state": trainer.state(), **closing}
        config |= {"loop": "rl", "lora": lora and lora.to_dict(), "lineage": longer.lineage if longer else []}
        tensors = trainer.tensors()
        for part in ("model", "ema"):
            require_finite_tensors(trainer.done, "weights", tensors[part])
        return checkpoints.write(out_dir / name, tensors, trainer.sampler.autoencoder, config)

    closing = _steps(trainer, out_dir, save, progress)
    return save(checkpoints.FINAL, **closing)


def _steps(
    trainer: _Trainer, out_dir: Path, save: Callable[..., Checkpoint], progress: Progress | None
) -> dict[str, Any]:
    """Take the steps that are left; returns the figures of the end. What stops them leaves a checkpoint."""
    recipe = trainer.recipe
    try:
        take_steps(trainer, out_dir, recipe.steps, save, checkpoint_every=recipe.checkpoint_every, progress=progress)
        if trainer.flat >= recipe.steps:
            log.warning("all %d steps were flat: no reward told pictures apart, and nothing was learnt", recipe.steps)
        _, closing = trainer.check()
        return closing
    except NothingToLearn:
        save(step_name(trainer.done))
        raise
    except RewardsLost as error:
        if trainer.done:
            save(step_name(trainer.done))
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
        device: torch.device,
    ) -> None:
        self.recipe, self.rewards, self.seed = recipe, rewards, seed
        self.sampler, self.device = Sampler(parent, device), device
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
                log.warning("no other verifier watches reward %s: name one in the recipe's proxies", name)
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

    def state(self) -> dict[str, Any]:
        return {"balance": self.balance.to_dict(), "since_check": self.since_check, "flat": self.flat}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        return {
            "model": self.policy.merged(),
            "ema": self.policy.merged(self.ema),
            "trainable": copies(self.policy.trainable),
            "trainable_ema": self.ema,
            "optimizer": moments(self.optimizer, self.policy.trainable),
        }

    def one_step(self) -> dict[str, Any]:
        """One step, after a check of the proxies where one is due. Nothing changes before the rewards have come."""
        recipe, step, balance = self.recipe, self.done, self.balance
        self._require_range()
        checked: dict[str, Any] = {}
        if step % recipe.check_every == 0:
            balance, checked = self.check()
        shares = mix(balance, self.base, recipe.mix_floor)
        drawn = draw(self.kinds, shares, recipe.prompts, self.seed, "rl prompts", step)
        groups, scores = self._roll_outs(drawn, step)
        weights = torch.tensor(
            [[recipe.weight(category(p), n) * balance.factor(n) for n in recipe.rewards] for p in drawn],
            dtype=torch.float64,
        )
        values = torch.tensor([numbers(rows, recipe.rewards, recipe.group) for rows in scores], dtype=torch.float64)
        advantages = grpo.group_advantages(values, weights, min_range=recipe.min_range)
        broken = not_finite([row for rows in scores for row in rows])
        line = {"step": step + 1, **checked, **self._reward_line(values, advantages, weights, balance, broken)}
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
    def _roll_outs(self, drawn: Sequence[RolloutPrompt], step: int) -> tuple[list[PromptGroup], list[Sequence[Scores]]]:
        """A group per prompt; its pictures are scored while the next group is drawn."""
        recipe, groups, futures = self.recipe, [], []
        with ThreadPoolExecutor(self.rewards.workers) as pool:
            for slot, (prompt, conditions) in enumerate(zip(drawn, self.reader.read(drawn), strict=True)):
                noises = [
                    [self.reader.noise(self.seed, "rl", step, slot, n, k) for n in range(recipe.group)]
                    for k in range(1 + recipe.window[1])
                ]
                noise = torch.stack([torch.stack(row) for row in noises]).to(self.device)
                group = roll_out(self.policy.model, prompt, conditions, noise[0], noise[1:], self.times, recipe)
                require_finite_tensors(step, "pictures", {prompt.prompt_id: group.latents})
                groups.append(group)
                futures.append(self._submit(pool, [prompt] * recipe.group, self.reader.pictures(group.latents)))
            return groups, [f.result() for f in futures]

    def _submit(
        self, pool: ThreadPoolExecutor, prompts: Sequence[RolloutPrompt], pictures: Sequence[bytes]
    ) -> Future[Sequence[Scores]]:
        requests = [
            Request(Item(image, p.text, p.task, p.reference_bytes()), p.checks)
            for p, image in zip(prompts, pictures, strict=True)
        ]
        return pool.submit(lambda: per_picture(self.rewards.score(requests), len(requests)))

    def _reward_line(
        self, values: Tensor, advantages: grpo.Advantages, weights: Tensor, balance: Balance, broken: Mapping[str, int]
    ) -> dict[str, Any]:
        """The rewards' part of a step's metrics; names rewards that cannot be learnt from. broken: as `not_finite`."""
        line: dict[str, Any] = {"rewards": {}}
        for name, count in broken.items():
            log.warning("step %d: %d scores of reward %s are not finite: not counted", self.done + 1, count, name)
        for i, name in enumerate(self.recipe.rewards):
            scored = values[:, :, i][~values[:, :, i].isnan()]
            line["rewards"][name] = {
                "mean": float(scored.mean()) if len(scored) else None,
                "std": float(scored.std(correction=0)) if len(scored) else None,
                "weight": float(weights[:, i].mean()),
                "factor": balance.factor(name),
                "groups": int(advantages.used[:, i].sum()),
                "unscored": int(values[:, :, i].isnan().sum()),
            }
            if not len(scored) or float(scored.std(correction=0)) < 1e-12:
                state = f"the same, {float(scored[0]):g}, for" if len(scored) else "not a number for any of"
                count = values[..., i].numel()
                log.warning("step %d: reward %s is %s all %d pictures", self.done + 1, name, state, count)
        return line | {"groups": len(values), "flat_groups": int((~advantages.kept).sum())}

    # Optimisation ---------------------------------------------------------------------------------------------------
    def _optimise(self, groups: Sequence[PromptGroup], advantages: grpo.Advantages) -> dict[str, Any]:
        """Take `inner_steps` optimiser steps on the groups that are not flat; returns metrics over all of them."""
        recipe = self.recipe
        set_rate(self.optimizer, recipe.learning_rate * falling(recipe.final_learning_rate, self.done, recipe.steps))
        kept = [(g, advantages.total[i].to(self.device)) for i, g in enumerate(groups) if advantages.kept[i]]
        ratios: list[tuple[int, Tensor]] = []
        kls: list[Tensor] = []
        losses: list[float] = []
        norms: list[float] = []
        for _ in range(recipe.inner_steps if kept else 0):
            self.optimizer.zero_grad(set_to_none=True)
            total = sum(len(g.t) for g, _ in kept)
            parts = []
            for group, advantage in kept:
                for part, ratio, kl in self._losses(group, advantage):
                    (part.sum() / total).backward()
                    parts.append(part.detach().sum() / total)
                    ratios.append((len(losses), ratio))
                    kls.append(kl)
            norms.append(float(torch.nn.utils.clip_grad_norm_(self.policy.trainable.values(), recipe.gradient_clip)))
            losses.append(float(sum(parts)))
            require_finite(self.done + 1, losses[-1], norms[-1])
            self.optimizer.step()
            move_ema(self.ema, self.policy.trainable, recipe.ema)
        line = {"loss": statistics.fmean(losses) if losses else 0.0, "grad_norm": norms[0] if norms else 0.0}
        line["lr"] = self.optimizer.param_groups[0]["lr"]
        if not ratios:
            return line
        every, first = torch.cat([r for _, r in ratios]), torch.cat([r for inner, r in ratios if not inner])
        below, above = recipe.clip
        return line | {
            "ratio_mean": float(every.mean()),
            "ratio_max": float(every.max()),
            "ratio_first": float((first - 1).abs().max()),  # before the first update: 0 up to rounding
            "clipped_below": float((every < 1 - below).float().mean()),
            "clipped_above": float((every > 1 + above).float().mean()),
            "guided_gap": float(torch.cat([g.gap for g, _ in kept]).mean()),
            "kl": float(torch.cat(kls).mean()),
        }

    def _losses(self, group: PromptGroup, advantage: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(loss, ratio, KL to the reference) per row, in parts of at most `recipe.rows` rows."""
        recipe, count = self.recipe, len(group.t)
        every = advantage.repeat(count // len(advantage))
        for start in range(0, count, recipe.rows or count):
            rows = slice(start, min(count, start + (recipe.rows or count)))
            x, t, old = group.x[rows], group.t[rows], group.old[rows]
            v = objective_velocity(self.policy.model, x, t, group.conditions, recipe)
            ratio = torch.ones_like(t)
            if recipe.algorithm == "nft":
                good = grpo.optimality(every[rows], recipe.nft_limit)
                x0 = group.latents.repeat(count // len(advantage), 1, 1, 1)[rows]
                loss = grpo.nft_loss(v, old, x, t, x0, good, recipe.nft_strength)
            else:
                step, guard = group.step(recipe, rows), recipe.algorithm == "guard"
                change = (grpo.guard_log_ratio if guard else grpo.log_ratio)(step, group.z[rows], v, old)
                loss = grpo.clipped_loss(change, every[rows], *recipe.clip)
                loss = loss * grpo.guard_weight(step) if guard else loss
                ratio = change.detach().exp()
            kl = torch.zeros_like(t)
            if recipe.kl:
                with self.policy.reference() as reference:
                    still = objective_velocity(reference, x, t, group.conditions, recipe)
                kl = grpo.velocity_kl(v, still)
                loss = loss + recipe.kl * kl
            yield loss, ratio, kl.detach()

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
            scored = numbers(rows, [proxy], len(self.watched)) if proxy else []
            values = {p.prompt_id: value for p, (value,) in zip(self.watched, scored)}
            proxies[name] = {k: v for k, v in values.items() if math.isfinite(v)}
        means = {n: statistics.fmean(v) if v else None for n, v in self.since_check.items()}
        balance, decided = check(self.balance, means, proxies, recipe.tolerance)
        return balance, {
            "held_out": self._means(rows),
            "held_out_without_cfg": self._means(plain),
            "balance": decided,
            "watched_by": self.proxies,
        }

    def _held_out_scores(self, cfg: float) -> list[Scores]:
        """Scores of one picture per held-out prompt, from the same noise at every check."""
        noise = torch.stack([self.reader.noise(self.seed, "held out", p.prompt_id) for p in self.watched])
        shown = [[picture(p, i) for i in range(len(p.references))] for p in self.watched]
        steps = self.recipe.sampling_steps
        latents = self.sampler.latents([p.text for p in self.watched], shown, noise=noise, steps=steps, cfg=cfg)
        require_finite_tensors(self.done, "pictures", {"of the held-out prompts": latents})
        with ThreadPoolExecutor(self.rewards.workers) as pool:
            futures = [
                self._submit(pool, self.watched[i : i + 16], self.reader.pictures(latents[i : i + 16]))
                for i in range(0, len(self.watched), 16)
            ]
            return [row for f in futures for row in f.result()]

    def _means(self, rows: Sequence[Scores]) -> dict[str, float | None]:
        """Mean of each reward over the pictures that it scored; None where it scored none."""
        columns = zip(self.rewards.names, zip(*numbers(rows, self.rewards.names, len(self.watched)), strict=True))
        scored = {name: [v for v in column if math.isfinite(v)] for name, column in columns}
        return {name: statistics.fmean(kept) if kept else None for name, kept in scored.items()}
