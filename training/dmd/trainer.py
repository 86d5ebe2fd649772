"""The distillation loop: the fake score follows the student, the student follows the teacher.

An interrupted run resumes to the same bits, because every draw is a function of (seed, step). Several processes share
the rows of each update; each has all weights, and an update sums their gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.mirror import fetched
from training import checkpoint as checkpoints
from training.adapter import adapt, merged
from training.checkpoint import Checkpoint
from training.distributed import World, joined
from training.dmd.recipe import DMDRecipe
from training.extension import loop_extension
from training.lora import DEFAULTS, LoRA, identified
from training.losses import dmd
from training.losses.flow_matching import Velocity, flow_matching_loss, logit_normal
from training.models.mmdit import MMDiT
from training.prompts import Condition, ConditionReader, RolloutPrompt, draw, prompts_digest, velocity
from training.randomness import generator
from training.run import (
    Progress,
    finished,
    last_checkpoint,
    require_finite,
    require_finite_tensors,
    take_steps,
)
from training.sampling import Sampler
from training.saving import copied, taken_by_first, write
from training.state import adamw, copies, falling, load_moments, moments, move_ema, put, set_rate, trained

PACE = ("steps", "learning_rate", "fake_learning_rate", "final_learning_rate")  # what may differ in an extension


def train(
    out_dir: Path,
    prompts: Sequence[RolloutPrompt],
    recipe: DMDRecipe,
    *,
    init: Path,
    seed: int = 0,
    extend: Path | None = None,
    progress: Progress | None = None,
) -> Checkpoint:
    """Distil the recipe's teachers into a student that starts as `init`; returns its final checkpoint.

    `extend`: a run, in a folder of its own, to go on from, to more `steps` or at other learning rates.

    Needs no pictures, only prompts (and their references). The checkpoint stores the student's time grid and guidance
    1; samplers and exports follow them. Resumes from the last checkpoint in `out_dir`. Errors: `UsageError` for another
    run's folder, unusable prompts, teachers that do not fit the student, or a loss or update that is not finite.

    Several processes, started by torchrun with the same arguments, train one student, up to rounding as one process
    does; the first one writes and reports. Their number may change from one start to the next.
    """
    out_dir, parent = Path(out_dir), Checkpoint(fetched(init))
    teachers = [Checkpoint(fetched(t)) for t in recipe.teachers] or [parent]
    recipe_values = recipe.to_dict() | {"teachers": [t.fingerprint for t in teachers]}
    longer = None
    if extend is not None:
        longer = loop_extension(extend, "dmd", recipe_values, PACE, seed=seed, parent=parent)
    origin = longer.origin if longer else ()
    settings = identified(recipe_values, *DEFAULTS)
    run = digest("dmd", settings, prompts_digest(prompts), seed, parent.fingerprint, *origin)
    final = finished(out_dir, run)
    if final is not None:
        return final
    config = {**parent.config, "run": run, "seed": seed, "steps": recipe.steps, "init": parent.fingerprint}
    config |= {"dmd": recipe_values, "sigmas": list(recipe.sigmas), "cfg": 1.0}
    adapted = (lora := LoRA.of(recipe)) and lora.to_dict()
    config |= {"loop": "dmd", "lora": adapted, "lineage": longer.lineage if longer else []}
    with joined() as world:
        world.by_first(lambda: checkpoints.sweep(out_dir))
        last = last_checkpoint(out_dir, run) or (longer.checkpoint if longer else None)
        trainer = _Trainer(parent, teachers, prompts, recipe, seed, last, world)

        def take(name: str) -> Callable[[], object]:
            step_config, tensors = {**config, "step": trainer.done}, trainer.tensors()
            for role in ("model", "fake"):
                require_finite_tensors(trainer.done, "weights", tensors[role])
            return lambda: write(out_dir / name, tensors, trainer.reader.autoencoder, step_config)

        def save(name: str) -> Callable[[], object]:
            return taken_by_first(world, partial(take, name))

        every = recipe.checkpoint_every
        take_steps(trainer, out_dir, recipe.steps, save, checkpoint_every=every, progress=progress, world=world)
        world.by_first(save(checkpoints.FINAL))
        return Checkpoint(out_dir / checkpoints.FINAL)


@dataclass(frozen=True)
class _Batch:
    """Rows of one layout: initial noise, conditions, the student's step that is trained, and the loss's draws."""

    noise: Tensor
    conditions: tuple[Condition, Condition]
    step: int
    t: Tensor
    loss_noise: Tensor
    guidance_t: Tensor
    guidance_noise: Tensor


class _Trainer:
    """The student, its teachers, the fake score, and what changes from step to step."""

    def __init__(
        self,
        parent: Checkpoint,
        teachers: Sequence[Checkpoint],
        prompts: Sequence[RolloutPrompt],
        recipe: DMDRecipe,
        seed: int,
        last: Checkpoint | None,
        world: World,
    ) -> None:
        self.recipe, self.seed, self.done, self.world = recipe, seed, 0, world
        self.device = device = world.device
        sampler = Sampler(parent, device)
        self.reader = ConditionReader(sampler.encoder, sampler.autoencoder, sampler.text_tokens, recipe.side, device)
        self.student = sampler.model
        self.fake = copy.deepcopy(self.student)
        self.teachers = [_teacher(t, parent, sampler).to(device) for t in teachers]
        if not all(m.config.cacheable for m in (self.student, *self.teachers)):
            raise UsageError("distillation needs block-causal models, whose condition is read once")
        self.kinds = {task: [p for p in prompts if p.task == task] for task in ("t2i", "ti2i")}
        if not prompts:
            raise UsageError("there are no prompts to distil on: give at least one")
        self.times = torch.tensor(recipe.times, device=device)
        self.lora = LoRA.of(recipe)
        self.models = {"model": self.student, "fake": self.fake}
        if self.lora:
            for role, model in self.models.items():
                adapt(model, self.lora, seed, role)
        self.named = {role: trained(model) for role, model in self.models.items()}
        rates = {"model": recipe.learning_rate, "fake": recipe.fake_learning_rate}
        self.optimizers = {
            role: adamw(named, rates[role], recipe.weight_decay, recipe.betas) for role, named in self.named.items()
        }
        self.rates = rates
        self.ema = copies(self.named["model"])
        if last is not None:
            for role, part in (("model", "trainable" if self.lora else "model"), ("fake", "fake")):
                put(self.named[role], last.tensors(part))
            ema, self.done = last.tensors("trainable_ema" if self.lora else "ema"), last.step
            self.ema = {name: tensor.to(device) for name, tensor in ema.items()}
            for role, optimizer in self.optimizers.items():
                load_moments(optimizer, self.named[role], last.tensors(f"{role}_optimizer"))

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """A copy of everything that changes with a step."""
        states = {f"{role}_optimizer": moments(o, self.named[role]) for role, o in self.optimizers.items()}
        out = copied({**self.named, "ema": self.ema, **states})
        if self.lora:  # the student as a plain model, and its adapter to go on from
            out |= {"trainable": out["model"], "trainable_ema": out["ema"]}
            out |= {"model": merged(self.student), "ema": merged(self.student, self.ema)}
        return out

    def one_step(self) -> dict[str, Any]:
        """`fake_updates` of the fake score, then one of the student."""
        fake_loss = 0.0
        for k in range(self.recipe.fake_updates):
            fake_loss += self._update("fake", self._fake_loss, self._batches("fake", k))[0] / self.recipe.fake_updates
        loss, norm = self._update("model", self._student_loss, self._batches("student", 0))
        move_ema(self.ema, self.named["model"], min(self.recipe.ema, (self.done + 1) / (self.done + 10)))
        self.done += 1
        rate = self.optimizers["model"].param_groups[0]["lr"]
        return {"step": self.done, "loss": loss, "fake_loss": fake_loss, "grad_norm": norm, "lr": rate}

    def _update(self, role: str, loss_of: Any, batches: Sequence[_Batch]) -> tuple[float, float]:
        """(loss, gradient norm) of one optimiser step of a role."""
        recipe, optimizer, world = self.recipe, self.optimizers[role], self.world
        rows = int(world.sum(sum(len(b.noise) for b in batches)))
        set_rate(optimizer, self.rates[role] * falling(recipe.final_learning_rate, self.done, recipe.steps))
        optimizer.zero_grad(set_to_none=True)
        losses = []
        for batch in batches:
            part = loss_of(batch).sum() / rows
            part.backward()
            losses.append(part.detach())
        world.add_gradients(self.named[role].values())
        total = world.sum(float(sum(losses)))
        norm = float(torch.nn.utils.clip_grad_norm_(self.named[role].values(), recipe.gradient_clip))
        require_finite(self.done + 1, total, norm)
        optimizer.step()
        return total, norm

    def _fake_loss(self, batch: _Batch) -> Tensor:
        """Flow matching on the student's samples, conditional only: the student has no guidance."""
        with torch.no_grad():
            x = self._student_output(batch)
        return flow_matching_loss(_bound(self.fake, batch.conditions[0]), x, batch.loss_noise, batch.t)

    def _student_loss(self, batch: _Batch) -> Tensor:
        x = self._student_output(batch)
        with torch.no_grad():
            fake, pull = _bound(self.fake, batch.conditions[0]), torch.zeros_like(x)
            for number, teacher in enumerate(self.teachers):
                if weight := self.recipe.weight(number, batch.step):
                    both = (_bound(teacher, batch.conditions[0]), _bound(teacher, batch.conditions[1]))
                    pull += weight * self._gradient(x, batch, fake, both)
        return dmd.matching_loss(x, pull)

    def _gradient(self, x: Tensor, batch: _Batch, fake: Velocity, teacher: dmd.Guided) -> Tensor:
        cfg = self.recipe.cfg
        if not self.recipe.decoupled:
            return dmd.gradient(x, batch.loss_noise, batch.t, fake, dmd.guided(teacher, cfg))
        return dmd.decoupled_gradient(
            x,
            batch.loss_noise,
            batch.t,
            fake,
            teacher,
            cfg,
            guidance_noise=batch.guidance_noise,
            guidance_t_B=batch.guidance_t,
        )

    def _student_output(self, batch: _Batch) -> Tensor:
        """Backward simulation: the student's own steps to a state of its trajectory, then its clean prediction there.

        With "clean", only that prediction has a gradient; with "end", the state is the last one and every step has one.
        """
        student = _bound(self.student, batch.conditions[0])
        if self.recipe.output == "end":
            return dmd.euler(student, batch.noise, self.times, len(self.times) - 1)
        with torch.no_grad():
            x = dmd.euler(student, batch.noise, self.times, batch.step)
        return dmd.clean(student, x, self.times[batch.step].expand(len(x)))

    def _batches(self, role: str, number: int) -> list[_Batch]:
        """This process's rows of one update, by layout; all in them is a function of (seed, step, role, number)."""
        recipe, key = self.recipe, (self.seed, "dmd", self.done, role, number)
        shares = {"t2i": recipe.t2i_share, "ti2i": 1 - recipe.t2i_share}
        drawn = draw(self.kinds, shares, recipe.batch, *key)
        return list(self._by_layout(drawn, key))

    def _by_layout(self, drawn: Sequence[RolloutPrompt], key: tuple[int | str, ...]) -> Iterator[_Batch]:
        recipe, steps = self.recipe, len(self.times) - 1
        for layout in self.reader.batches(drawn, self.world):
            rng, rows, own = generator(*key, "layout", layout.number), layout.rows, layout.own
            step = steps - 1 if recipe.output == "end" else int(rng.integers(steps))
            normal = torch.from_numpy(rng.standard_normal(len(rows), dtype="float32"))[own]
            above = torch.from_numpy(rng.random(len(rows), dtype="float32"))[own]
            lowest, highest = recipe.t_range
            floor = max(lowest, recipe.times[step + 1])
            kinds = ("x", "other", "cfg")
            noises = [torch.stack([self.reader.noise(*key, kind, rows[n]) for n in own]) for kind in kinds]
            yield _Batch(
                noise=noises[0].to(self.device),
                conditions=layout.conditions,
                step=step,
                t=logit_normal(normal, recipe.time_mean, recipe.time_std).clamp(lowest, highest).to(self.device),
                loss_noise=noises[1].to(self.device),
                guidance_t=(floor + (highest - floor) * above).to(self.device),
                guidance_noise=noises[2].to(self.device),
            )


def _bound(model: MMDiT, condition: Condition) -> Velocity:
    """The model's velocity under a condition, whose keys and values are computed once."""
    return partial(_velocity, model, condition.prefix(model))


def _velocity(model: MMDiT, prefix: Any, x: Tensor, t_B: Tensor) -> Tensor:
    return velocity(model, x, t_B, prefix)


def _teacher(checkpoint: Checkpoint, student: Checkpoint, sampler: Sampler) -> MMDiT:
    """A frozen teacher. Errors: `UsageError` if its autoencoder or condition is not the student's."""
    if checkpoint.autoencoder().fingerprint != sampler.autoencoder.fingerprint:
        raise UsageError(
            f"teacher {checkpoint.path} and student {student.path} use different autoencoders: give another teacher"
        )
    if checkpoint.config["condition"] != student.config["condition"]:
        raise UsageError(
            f"teacher {checkpoint.path} and student {student.path} read different conditions: give another teacher"
        )
    return checkpoint.model("ema").eval().requires_grad_(False)
