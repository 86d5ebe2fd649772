"""One training loop for every recipe: flow matching on shards, stage by stage. An interrupted run resumes to the same
bits, in the stage and at the step where it was.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flywheel.core.files import digest
from flywheel.core.mirror import fetched
from flywheel.core.storage import located
from training import checkpoint as checkpoints
from training.adapter import merged
from training.batch import Part, batch_loss, own_batch
from training.checkpoint import Checkpoint
from training.curriculum import Curriculum, Turn, plan_settings, schedule
from training.data.latents import Latents, encoded
from training.data.loader import Loader, Prepared, Texts
from training.data.plan import DataPlan, MixSource, mix_digest, read_manifest
from training.data.row_group import RowGroup
from training.distributed import World, computing, full_tensor, joined, parallelise, reduce_gradients
from training.extension import Extension, extension
from training.initial import initial_model
from training.lora import LoRA
from training.models.autoencoder import Autoencoder
from training.models.condition import Cached, ConditionEncoder
from training.models.encoders import load_condition_encoder
from training.models.mmdit import MMDiT
from training.recipes import Recipe, Stage
from training.run import (
    Progress,
    due,
    finished,
    last_checkpoint,
    require_finite,
    require_finite_shares,
    step_name,
    take_steps,
)
from training.saving import copied, write, write_together
from training.state import build_optimizer, copies, falling, move_ema, set_rate, trained, training_state
from training.vae.autoencoding import choose_autoencoder, fitting_plan
from training.validation import draw_held_out, validation_loss

log = logging.getLogger(__name__)


def train(
    out_dir: Path,
    mix: Sequence[MixSource],
    recipe: Recipe,
    *,
    init: Path | None = None,
    seed: int = 0,
    steps: int | None = None,
    extend: Path | None = None,
    progress: Progress | None = None,
    trackers: Sequence[str] | None = None,
) -> Checkpoint:
    """Train `steps` (default: the recipe's) and return the final checkpoint; a finished run returns at once.

    The recipe's stages divide the steps as `training.curriculum.schedule` says; weights, optimiser and EMA go on from
    one to the next.

    `init`: a checkpoint to start from (its EMA weights, autoencoder and model shape), with a fresh optimiser.
    `extend`: a run, in a folder of its own, to go on from (`training.extension`); `steps` counts from that one's start.

    Resumes from the last checkpoint in `out_dir`. Several processes, started by torchrun or Ray Train with the same
    arguments, train one model; the first one writes and reports, and each sees `out_dir` and the shards. Their number
    may change from one start to the next. Errors: `UsageError` when `out_dir` holds another run, or the loss is not
    finite; `ShardError`.
    """
    out_dir, steps = Path(out_dir), steps or recipe.steps
    parent = Checkpoint(fetched(init)) if init is not None else None
    longer = extension(extend, recipe, steps=steps, seed=seed, parent=parent) if extend is not None else None
    origin = longer.origin if longer else ()
    run = digest(mix_digest(mix), recipe.method(), steps, seed, parent and parent.fingerprint, *origin)
    final = finished(out_dir, run)
    if final is not None:
        return final
    with joined() as world:
        phase = _set_up(out_dir, mix, recipe, world, run=run, parent=parent, longer=longer, seed=seed, steps=steps)
        _tell(phase)
        take_steps(
            phase,
            out_dir,
            steps,
            partial(_save, phase, world.aside()),
            checkpoint_every=recipe.checkpoint_every,
            progress=progress,
            world=world,
            trackers=trackers,
            after_step=partial(_draw_samples, phase),
        )
        return _finish(phase)


# The loop -----------------------------------------------------------------------------------------------------------
@dataclass
class _Phase:
    """A run being trained. `done`, `samples`, `turn` with its `loader`, and `batch` (of the next step) change, and the
    tensors in `state`. told: what was said of the data.
    """

    out_dir: Path
    mix: Sequence[MixSource]
    recipe: Recipe
    curriculum: Curriculum
    seed: int
    steps: int
    world: World
    autoencoder: Autoencoder
    encoder: Cached
    null: Tensor
    model: MMDiT
    ema: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    state: dict[str, dict[str, Tensor]]
    described: dict[str, Any]
    done: int
    samples: int
    turn: Turn
    loader: Loader
    batch: tuple[int, list[Part]]
    told: set[str] = field(default_factory=set)

    def one_step(self) -> dict[str, Any]:
        """Take one step and return its metrics."""
        return _step(self)

    def config(self) -> dict[str, Any]:
        """A checkpoint's configuration after the steps done."""
        place = {"step": self.done, "stage": self.turn.stage.name, "stage_start": self.turn.start}
        return {**self.described, **place, "samples_seen": self.samples}


def _set_up(
    out_dir: Path,
    mix: Sequence[MixSource],
    recipe: Recipe,
    world: World,
    *,
    run: str,
    parent: Checkpoint | None,
    longer: Extension | None,
    seed: int,
    steps: int,
) -> _Phase:
    """The run at its start, or as the last checkpoint in `out_dir`, or of the run that it extends, left it."""
    if world.first:
        checkpoints.sweep(out_dir)
    world.wait()
    curriculum = _curriculum(recipe, mix, steps, longer)
    last = last_checkpoint(out_dir, run) or (longer.checkpoint if longer else None)
    encoder = Cached(load_condition_encoder(recipe.condition).to(world.device))
    autoencoder = choose_autoencoder(
        lambda: fitting_plan(mix, recipe, seed), recipe, last or parent, out_dir, world
    ).to(world.device)
    lora = LoRA.of(recipe)
    model = parallelise(initial_model(recipe, lora, encoder, seed, last, parent), recipe, world)
    ema = copies(trained(model))
    optimizer = build_optimizer(model, betas=recipe.betas, weight_decay=recipe.weight_decay)
    state = training_state(model, ema, optimizer)
    if last is not None:
        last.restore(state)
    done = last.step if last else 0
    described = {"run": run, "seed": seed, "steps": steps, "init": parent and parent.fingerprint}
    described |= _method(recipe, encoder, autoencoder, model, lora)
    described |= {"lineage": longer.lineage} if longer else {}
    turn = curriculum.at(done)
    loader = _loader(mix, turn, recipe, seed, autoencoder, encoder)
    return _Phase(
        out_dir=out_dir,
        mix=mix,
        recipe=recipe,
        curriculum=curriculum,
        seed=seed,
        steps=steps,
        world=world,
        autoencoder=autoencoder,
        encoder=encoder,
        null=encoder.encode([""])[0],
        model=model,
        ema=ema,
        optimizer=optimizer,
        state=state,
        described=described,
        done=done,
        samples=last.config["samples_seen"] if last else 0,
        turn=turn,
        loader=loader,
        batch=own_batch(loader.plan, done - turn.start, recipe, world),
    )


def _curriculum(recipe: Recipe, mix: Sequence[MixSource], steps: int, longer: Extension | None) -> Curriculum:
    """The turns of the run. Errors: `UsageError`, also for manifests that are read only when a later stage begins."""
    curriculum = longer.curriculum(recipe, mix, steps) if longer else schedule(recipe, mix, steps)
    if recipe.on_error == "raise":
        for source in mix:
            read_manifest(source.manifest, [turn.stage.name for turn in curriculum.turns])
    return curriculum


def _method(
    recipe: Recipe, encoder: ConditionEncoder, autoencoder: Autoencoder, model: MMDiT, lora: LoRA | None
) -> dict[str, Any]:
    """What a checkpoint says of how it was trained."""
    return {
        "recipe": recipe.to_dict(),
        "model": model.config.to_dict(),
        "condition": {"encoder": recipe.condition, "fingerprint": encoder.fingerprint, "tokens": recipe.text_tokens},
        "autoencoder": autoencoder.fingerprint,
        "schedule": recipe.schedule,
        "lora": lora and lora.to_dict(),
    }


def _loader(
    mix: Sequence[MixSource],
    turn: Turn,
    recipe: Recipe,
    seed: int,
    autoencoder: Autoencoder,
    encoder: Cached,
) -> Loader:
    """The loader of a stage's rows."""
    plan = DataPlan(mix, **plan_settings(recipe, turn.stage, seed), on_error=recipe.on_error)
    return Loader(
        plan,
        prepare_with(autoencoder),
        resolution=recipe.resolution,
        unit=recipe.factor,
        latents=cached_latents(recipe, autoencoder),
        reference_pixels=encoder.reads_references,
        texts=texts_with(encoder),
        caption_shares=recipe.caption_shares,
        encode=encoder.encode,
    )


def _tell(phase: _Phase) -> None:
    """Warn of each share that the data cannot give, in the first stage that asks for it."""
    for note in phase.loader.plan.notes if phase.world.first else ():
        if note not in phase.told:
            phase.told.add(note)
            log.warning("%s: %s", phase.turn.stage.name, note)


def _begin_turn(phase: _Phase) -> None:
    """Go on with the next stage."""
    phase.turn = phase.curriculum.at(phase.done)
    phase.loader = _loader(phase.mix, phase.turn, phase.recipe, phase.seed, phase.autoencoder, phase.encoder)
    _tell(phase)
    phase.batch = own_batch(phase.loader.plan, 0, phase.recipe, phase.world)


def _step(phase: _Phase) -> dict[str, float | str | None]:
    """One optimiser step, and validation where it is due; returns the step's metrics."""
    if phase.done == phase.turn.end:
        _begin_turn(phase)
    recipe, world, step = phase.recipe, phase.world, phase.done
    rows, own_loss, skipped, kinds = _gradients(phase)
    loss = world.sum(own_loss)
    norm = full_tensor(torch.nn.utils.clip_grad_norm_(phase.model.parameters(), recipe.clip)).item()
    require_finite(step + 1, loss, norm)
    rate = learning_rate(recipe, phase.turn.stage, step, phase.steps)
    set_rate(phase.optimizer, rate)
    phase.optimizer.step()
    move_ema(phase.ema, trained(phase.model), min(recipe.ema, (step + 1) / (step + 10)))
    phase.done, phase.samples = step + 1, phase.samples + rows
    line: dict[str, float | str | None] = {
        "step": phase.done,
        "stage": phase.turn.stage.name,
        "loss": loss,
        "grad_norm": norm,
        "lr": rate,
        "samples": phase.samples,
    }
    if due(recipe.validate_every, phase.done) or (recipe.validate_every and phase.done == phase.steps):
        line["validation_loss"] = validation_loss(phase.model, phase.loader, recipe, phase.seed, world)
    for kind in recipe.caption_shares:
        if count := int(world.sum(kinds[kind])):
            line[f"captions_{kind}"] = count
    if recipe.on_error == "skip":
        line["skipped"] = int(world.sum(skipped))
    return line


def _gradients(phase: _Phase) -> tuple[int, float, int, Counter[str]]:
    """Gradients of the next global batch: (its rows; its loss, its skipped rows, its captions by kind: those here)."""
    recipe, loader, world, following = phase.recipe, phase.loader, phase.world, phase.done + 1
    rows, parts = phase.batch
    if following < phase.turn.end:
        phase.batch = own_batch(loader.plan, following - phase.turn.start, recipe, world)
    upcoming = [*parts[1:], *phase.batch[1][: following < phase.turn.end]]
    phase.optimizer.zero_grad(set_to_none=True)
    loss, skipped, kinds, stage = torch.zeros((), device=world.device), 0, Counter[str](), phase.turn.stage.name
    for number, (part, counted) in enumerate(parts):
        micro = loader.gather(part)
        loader.expect([next_rows for next_rows, _ in upcoming[number : number + 1]])  # read while this one is computed
        with computing(recipe, world.device):
            share = batch_loss(phase.model, micro, phase.null, recipe, phase.seed, stage)[:counted].sum() / rows
        reduce_gradients(phase.model, recipe.reduce_every or number + 1 == len(parts))
        (share * world.size).backward()  # FSDP averages gradients over processes; ours is a sum
        loss += share.detach()
        skipped += sum(n < counted for n in micro.skipped)
        kinds.update(micro.kinds[:counted])
    return rows, loss.item(), skipped, kinds


def _draw_samples(phase: _Phase) -> None:
    """Draw held-out rows where that is due."""
    if not due(phase.recipe.sample_every, phase.done):
        return
    weights = merged(phase.model, phase.ema, phase.world)
    if phase.world.first:
        path = phase.out_dir / "samples" / f"{step_name(phase.done)}.png"
        config, device = phase.config(), phase.world.device
        draw_held_out(path, weights, phase.loader, phase.autoencoder, phase.encoder, config, device)


def _save(phase: _Phase, aside: World, name: str) -> Callable[[], object]:
    """Copy an intermediate checkpoint; returns what writes it, with processes that talk `aside`."""
    require_finite_shares(phase.done, phase.state, phase.world)
    state, config = copied(phase.state), phase.config()
    return lambda: write_together(phase.out_dir / name, state, phase.autoencoder, config, aside)


def _finish(phase: _Phase) -> Checkpoint:
    path, world = phase.out_dir / checkpoints.FINAL, phase.world
    require_finite_shares(phase.done, phase.state, world)
    tensors = dict(phase.state)
    if phase.described["lora"]:
        tensors |= {"model": merged(phase.model, world=world), "ema": merged(phase.model, phase.ema, world)}
    return write(path, tensors, phase.autoencoder, phase.config(), world)


# Parts of the loop --------------------------------------------------------------------------------------------------
def cached_latents(recipe: Recipe, autoencoder: Autoencoder) -> Latents | None:
    """The recipe's cached latents."""
    if not recipe.latents:
        return None
    return Latents(
        located(recipe.latents), autoencoder.fingerprint, recipe.resolution, recipe.latents_dtype, recipe.factor
    )


def learning_rate(recipe: Recipe, stage: Stage, step: int, steps: int) -> float:
    """The stage's rate, after the run's linear warm-up; by the run's last step, `final_learning_rate` of it."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup))
    return stage.learning_rate * warm * falling(recipe.final_learning_rate, step, steps)


def prepare_with(autoencoder: Autoencoder) -> Callable[[RowGroup], Prepared]:
    """Row group → latents."""

    @torch.no_grad()
    def prepare(group: RowGroup) -> Prepared:
        return Prepared(*encoded(group, autoencoder), [])

    return prepare


def texts_with(encoder: ConditionEncoder) -> Callable[[RowGroup], Texts]:
    """Row group → its text states where they depend on references; else they are left to the loader's `encode`."""

    def texts(group: RowGroup) -> Texts:
        count = (group.references if group.reference_latents is None else group.reference_latents).shape[1]
        if not encoder.reads_references:
            return Texts([], (), encoder.lead(count))
        shown = list(group.references)
        nulls = encoder.encode([""] * len(shown), shown) if count else ()
        return Texts(encoder.encode(group.captions, shown), nulls, encoder.lead(count))

    return texts
