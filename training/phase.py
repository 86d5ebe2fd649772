"""One training loop for every phase: flow matching on shards. Killed and run again, it ends in the same bits."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.mirror import fetched
from flywheel.core.storage import located
from training import checkpoint as checkpoints
from training.checkpoint import Checkpoint, Metrics
from training.data.latents import Latents, encoded
from training.data.loader import Loader, MicroBatch, Prepared
from training.data.plan import DataPlan, MixSource, Row, plan_digest
from training.data.row_group import RowGroup
from training.distributed import World, computing, gathered, joined, own_rows, parallelise, whole
from training.losses.flow_matching import flow_matching_loss, logit_normal
from training.models.autoencoder import Autoencoder
from training.models.condition import Cached, ConditionEncoder, load_condition_encoder, pad, padded_length
from training.models.mmdit import MMDiT, MMDiTConfig, preset
from training.randomness import generator
from training.recipes import Recipe
from training.sampling import Sampler, grid
from training.sequence import as_tokens, sequence_layout
from training.state import build_optimizer, copies, falling, move_ema, set_rate, training_state
from training.vae.autoencoding import choose_autoencoder

log = logging.getLogger(__name__)
VALIDATION_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)

Progress = Callable[[int, int, Mapping[str, Any]], None]
"""(step, steps, metrics of the step)."""


def train(
    out_dir: Path,
    mix: Sequence[MixSource],
    recipe: Recipe,
    *,
    init: Path | None = None,
    seed: int = 0,
    steps: int | None = None,
    progress: Progress | None = None,
    tensorboard: bool = False,
) -> Checkpoint:
    """Train to `steps` (default: the recipe's) and return the final checkpoint; a finished run returns at once.

    `init`: a checkpoint to start from (its EMA weights, autoencoder and model shape), with a fresh optimiser.
    Resumes from the last checkpoint in `out_dir`. Several processes, started by torchrun or Ray Train with the same
    arguments, train one model; the first one writes and reports, and each sees `out_dir` and the shards. Their number
    may change from one start to the next. Errors: `UsageError` when `out_dir` holds another run, or the loss is no
    longer a number; `ShardError`.
    """
    out_dir, steps = Path(out_dir), steps or recipe.steps
    parent = Checkpoint(fetched(init)) if init is not None else None
    plan_numbers = {
        "batch": recipe.batch,
        "t2i_share": recipe.t2i_share,
        "seed": seed,
        "stages": tuple(recipe.stages),
        "window": recipe.window,
    }
    run = digest(plan_digest(mix, **plan_numbers), recipe.method(), steps, parent and parent.fingerprint)
    final = Checkpoint(out_dir / checkpoints.FINAL)
    if final.path.exists():
        return same_run(final, run)

    with joined() as world:
        if world.first:
            checkpoints.sweep(out_dir)
        world.wait()
        plan = DataPlan(mix, **plan_numbers, on_error=recipe.on_error)
        for note in plan.notes if world.first else ():
            log.warning(note)
        found = checkpoints.steps(out_dir)
        last = same_run(found[-1], run) if found else None
        encoder = Cached(load_condition_encoder(recipe.condition).to(world.device))
        autoencoder = choose_autoencoder(plan, recipe, last or parent, out_dir, world).to(world.device)
        model = parallelise(initial_model(recipe, encoder, seed, last, parent), recipe, world)
        ema = copies(dict(model.named_parameters()))
        optimizer = build_optimizer(model, betas=recipe.betas, weight_decay=recipe.weight_decay)
        state = training_state(model, ema, optimizer)
        if last is not None:
            last.restore(state)
        loader = Loader(
            plan,
            prepare_with(autoencoder, encoder),
            resolution=recipe.resolution,
            latents=cached_latents(recipe, autoencoder),
            reference_pixels=encoder.reads_references,
        )
        null = encoder.encode([""])[0]
        metrics = (
            Metrics(out_dir, resume_step=last.step if last else 0, tensorboard=tensorboard) if world.first else None
        )
        seen = last.config["samples_seen"] if last else 0
        config = {
            "run": run,
            "seed": seed,
            "steps": steps,
            "recipe": recipe.to_dict(),
            "model": model.config.to_dict(),
            "condition": {
                "encoder": recipe.condition,
                "fingerprint": encoder.fingerprint,
                "tokens": recipe.text_tokens,
            },
            "autoencoder": autoencoder.fingerprint,
            "schedule": recipe.schedule,
            "init": parent and parent.fingerprint,
        }
        start = last.step if last else 0
        following = own_batch(plan, start, recipe, world)
        for step in range(start, steps):
            clock, loss, skipped = time.process_time(), 0.0, 0
            (rows, parts), following = following, own_batch(plan, step + 1, recipe, world)
            later = [*parts[1:], *following[1][: step + 1 < steps]]
            optimizer.zero_grad(set_to_none=True)
            for number, (part, counted) in enumerate(parts):
                micro = loader.gather(part)
                loader.expect([coming for coming, _ in later[number : number + 1]])  # read while this one is computed
                with computing(recipe, world.device):
                    share = batch_loss(model, micro, null, recipe, seed)[:counted].sum() / rows
                (share * world.size).backward()  # FSDP averages gradients over processes; ours is a sum
                loss += share.item()
                skipped += sum(n < counted for n in micro.skipped)
            loss = world.sum(loss)
            norm = whole(torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)).item()
            if not math.isfinite(loss + norm):
                raise UsageError(
                    f"step {step + 1}: loss {loss}, gradient norm {norm}: lower the learning rate or look at the data "
                    "of this step; run again to go on from the last checkpoint"
                )
            rate = learning_rate(recipe, step, steps)
            set_rate(optimizer, rate)
            optimizer.step()
            move_ema(ema, dict(model.named_parameters()), min(recipe.ema, (step + 1) / (step + 10)))
            seen, done = seen + rows, step + 1
            line = {"step": done, "loss": loss, "grad_norm": norm, "lr": rate, "samples": seen}
            if _due(recipe.validate_every, done) or (recipe.validate_every and done == steps):
                line["validation_loss"] = validation_loss(model, loader, recipe, seed, world)
            if recipe.on_error == "skip":
                line["skipped"] = int(world.sum(skipped))
            if metrics is not None:
                metrics.append({**line, "cpu_seconds": round(time.process_time() - clock, 4)})
            if progress is not None and world.first:
                progress(done, steps, line)
            now = {**config, "step": done, "samples_seen": seen}
            if _due(recipe.sample_every, done):
                weights = gathered(ema, world)
                if world.first:
                    draw_held_out(
                        out_dir / "samples" / f"step-{done:08d}.png", weights, loader, autoencoder, encoder, now
                    )
            if _due(recipe.checkpoint_every, done) and done < steps:
                checkpoints.write_together(out_dir / f"step-{done:08d}", state, autoencoder, now, world)
                if world.first:
                    checkpoints.prune(out_dir, keep=2)
        now = {**config, "step": steps, "samples_seen": seen}
        whole_state = {part: gathered(tensors, world) for part, tensors in state.items()}
        if world.first:
            checkpoints.write(final.path, whole_state, autoencoder, now)
        world.wait()
        return final


# Parts of the loop --------------------------------------------------------------------------------------------------
def batch_loss(model: MMDiT, micro: MicroBatch, null: Tensor, recipe: Recipe, seed: int) -> Tensor:
    """Flow-matching loss per row [B]. Noise, t and dropped text are functions of (seed, bucket, slot) alone."""
    noise, normal, states = torch.empty_like(micro.latents), torch.empty(len(micro.rows)), list(micro.states)
    for i, row in enumerate(micro.rows):
        rng = generator(seed, "step", row.bucket, row.slot)
        if rng.random() < recipe.dropout:
            states[i] = micro.nulls[i] if micro.nulls else null
        normal[i] = rng.standard_normal()
        noise[i] = torch.from_numpy(rng.standard_normal(noise.shape[1:], dtype="float32"))
    t = logit_normal(normal, recipe.time_mean, recipe.time_std)
    return conditional_loss(model, micro, states, noise, t, recipe.text_tokens)


def conditional_loss(
    model: MMDiT, micro: MicroBatch, states: list[Tensor], noise: Tensor, t: Tensor, text_tokens: int
) -> Tensor:
    """Flow-matching loss per row [B] on the model's device, given noise, times and text states."""
    device = model.image_in.weight.device
    text, valid = pad(states, padded_length(max(map(len, states)), text_tokens))
    text, valid = text.to(device), None if valid is None else valid.to(device)
    references = micro.references.to(device)
    layout = sequence_layout(text.shape[1], references.shape[1], tuple(micro.latents.shape[-2:]), micro.lead)
    tokens = as_tokens(references.transpose(1, 2).flatten(3)) if references.shape[1] else None

    def velocity(x_t: Tensor, time: Tensor) -> Tensor:
        out = model(as_tokens(x_t), time, text, layout, references_BRC=tokens, text_valid_BL=valid)
        return out.transpose(1, 2).unflatten(2, x_t.shape[-2:])

    return flow_matching_loss(velocity, micro.latents.to(device), noise.to(device), t.to(device))


def own_batch(plan: DataPlan, step: int, recipe: Recipe, world: World) -> tuple[int, list[tuple[list[Row], int]]]:
    """Rows of the global batch, and this process's parts of it: (rows of one layout, how many of them count)."""
    layouts = plan.batch(step)
    parts = [p for rows in layouts for p in own_rows(rows, world, rows_at_once(plan, rows[0], recipe))]
    return sum(map(len, layouts)), parts


def cached_latents(recipe: Recipe, autoencoder: Autoencoder) -> Latents | None:
    """The side-cars that the recipe names."""
    if not recipe.latents:
        return None
    return Latents(located(recipe.latents), autoencoder.fingerprint, recipe.resolution, recipe.latents_dtype)


def rows_at_once(plan: DataPlan, row: Row, recipe: Recipe) -> int:
    """Rows of this row's layout that one forward pass takes under the recipe's `micro_tokens`; 0 is no limit."""
    if not recipe.micro_tokens:
        return 0
    height, width = trained_size(plan, row, recipe.resolution)
    images = 1 + plan.shards[row.shard].shape[2]
    return max(1, recipe.micro_tokens * recipe.factor**2 // (height * width * images))


def trained_size(plan: DataPlan, row: Row, resolution: Mapping[int, int]) -> tuple[int, int]:
    """(height, width) in pixels that this row is trained at."""
    height, width, _ = plan.shards[row.shard].shape
    pixels = resolution.get(row.bucket, row.bucket)
    return height * pixels // row.bucket, width * pixels // row.bucket


@torch.no_grad()
def validation_loss(
    model: MMDiT, loader: Loader, recipe: Recipe, seed: int, world: World | None = None
) -> float | None:
    """Mean loss of held-out rows at fixed times and noise; None where the data is too small to hold any out."""
    total, world = 0.0, world or World()
    layouts = loader.plan.validation(recipe.validation_rows)
    for layout in layouts:
        for rows, counted in own_rows(layout, world, rows_at_once(loader.plan, layout[0], recipe)):
            micro = loader.gather(rows)
            shape = micro.latents.shape[1:]
            keys = [generator(seed, "validation noise", row.slot) for row in rows]
            noise = torch.stack([torch.from_numpy(rng.standard_normal(shape, dtype="float32")) for rng in keys])
            for time_value in VALIDATION_TIMES:
                t = torch.full((len(rows),), time_value)
                with computing(recipe, world.device):
                    losses = conditional_loss(model, micro, micro.states, noise, t, recipe.text_tokens)
                total += losses[:counted].sum().item()
    count = sum(map(len, layouts)) * len(VALIDATION_TIMES)
    return world.sum(total) / count if count else None


def draw_held_out(
    path: Path,
    ema: dict[str, Tensor],
    loader: Loader,
    autoencoder: Autoencoder,
    encoder: ConditionEncoder,
    config: dict[str, Any],
) -> None:
    """A grid of what the EMA weights draw from the captions and references of held-out rows, largest layout first."""
    layouts = sorted(loader.plan.validation(config["recipe"]["validation_rows"]), key=len, reverse=True)
    rows = layouts[0][: config["recipe"]["sample_rows"]] if layouts else []
    if not rows:
        return
    model = MMDiTConfig.from_dict(config["model"]).build()
    model.load_state_dict(ema)
    pixels = Loader(loader.plan, loader.prepare, resolution=loader.resolution)  # references, also beside latents
    groups = [pixels.read(row.shard, row.group) for row in rows]
    captions = [group.captions[row.row] for group, row in zip(groups, rows, strict=True)]
    references = [list(g.references[r.row].permute(0, 2, 3, 1).numpy()) for g, r in zip(groups, rows, strict=True)]
    sampler = Sampler.of(model, autoencoder, encoder, config)
    size = trained_size(loader.plan, rows[0], loader.resolution)
    images = sampler.sample(captions, references, size=size, seed=config["seed"])
    grid(images, captions, path, columns=4, scale=max(1, 128 // images.shape[1]))


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Linear warm-up, then linear to `final_learning_rate` of the full rate at the last step."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup))
    return recipe.learning_rate * warm * falling(recipe.final_learning_rate, step, steps)


def prepare_with(autoencoder: Autoencoder, encoder: ConditionEncoder) -> Callable[[RowGroup], Prepared]:
    """Row group → latents and text states."""

    @torch.no_grad()
    def prepare(group: RowGroup) -> Prepared:
        latents, references = encoded(group, autoencoder)
        n, count = references.shape[:2]
        states = encoder.encode(group.captions, group.references)
        nulls = encoder.encode([""] * n, group.references) if count and encoder.reads_references else ()
        return Prepared(latents, references, states, nulls, encoder.lead(count))

    return prepare


def build_model(recipe: Recipe, encoder: ConditionEncoder, seed: int) -> MMDiT:
    """A fresh model of the recipe's preset; its weights are a function of the seed. Errors: `UsageError`."""
    try:
        config: MMDiTConfig = preset(recipe.model, channels=recipe.channels, condition_dim=encoder.dim)
    except ValueError as error:
        raise UsageError(f"recipe {recipe.name}: {error}") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "weights").integers(2**62)))
        return config.build()


def initial_model(
    recipe: Recipe, encoder: ConditionEncoder, seed: int, last: Checkpoint | None, parent: Checkpoint | None
) -> MMDiT:
    """The parent's EMA weights, or fresh ones; where a run goes on, only the shape: its weights are restored later."""
    if last is not None:
        return MMDiTConfig.from_dict(last.config["model"]).build()
    return build_model(recipe, encoder, seed) if parent is None else parent.model("ema")


def _due(every: int, done: int) -> bool:
    return bool(every) and done % every == 0


def same_run(found: Checkpoint, run: str) -> Checkpoint:
    if found.config["run"] != run:
        raise UsageError(
            f"{found.path} belongs to another run (data, recipe, steps, seed or parent differ): give a new folder"
        )
    return found
