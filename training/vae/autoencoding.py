"""A run's autoencoder: that of the checkpoint it starts from, the VAE the recipe names, or one made from the data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from torch import Tensor

from flywheel.core.errors import UsageError
from training.checkpoint import Checkpoint
from training.data.loader import Loader
from training.data.plan import DataPlan, MixSource, ShardError, read_listing
from training.data.row_group import RowGroup, to_uint8, to_unit
from training.distributed import World
from training.models.autoencoder import Autoencoder, PatchAutoencoder, fit
from training.models.vae import VAE
from training.recipes import Recipe

log = logging.getLogger(__name__)
_MADE_HERE = {"patch", "tiny-vae"}  # on the data of a run that starts from nothing


def choose_autoencoder(
    plan: Callable[[], DataPlan], recipe: Recipe, start: Checkpoint | None, out_dir: Path, world: World | None = None
) -> Autoencoder:
    """The interrupted run's or the parent's; without either, the VAE that the recipe names or one made from the data.

    plan: returns the rows that it is made from; called only then. An imported checkpoint brings its own, unless the
    recipe names another VAE.
    Errors: `UsageError` when recipe and parent name different ones, or the latents are not the recipe's.
    """
    if start is None:
        autoencoder = _first_autoencoder(plan, recipe, out_dir, world or World())
    else:
        autoencoder, named = start.autoencoder(), start.config["recipe"].get("autoencoder", "patch")
        imported = "imported" in start.config and recipe.autoencoder in _MADE_HERE  # it brings its own
        made_here = {named, recipe.autoencoder} & _MADE_HERE if "imported" not in start.config else ()
        if (
            not imported
            and named != recipe.autoencoder
            and (made_here or VAE.open(recipe.autoencoder).fingerprint != autoencoder.fingerprint)
        ):
            raise UsageError(
                f"{start.path} was trained on latents of {named}, the recipe names {recipe.autoencoder}: "
                f"set autoencoder = {named!r}, or start without a parent"
            )
    if (autoencoder.channels, autoencoder.factor) != (recipe.channels, recipe.factor):
        raise UsageError(
            f"the autoencoder has {autoencoder.channels} channels and factor {autoencoder.factor}, the recipe says "
            f"{recipe.channels} and {recipe.factor}: change channels and factor in the recipe"
        )
    return autoencoder


def fitting_plan(mix: Sequence[MixSource], recipe: Recipe, seed: int) -> DataPlan:
    """The rows of all stages in the smallest bucket: every picture stays in the buckets that it fills."""
    stages = tuple(stage.name for stage in recipe.stages)
    files = [file for source in mix for file in read_listing(source.manifest).files]
    smallest = min(file.bucket for file in files if recipe.reads(file.stages, file.bucket))
    return DataPlan(
        mix,
        batch={smallest: recipe.batch[smallest]},
        t2i_share=0.5,
        seed=seed,
        stages=stages,
        window=recipe.window,
        on_error=recipe.on_error,
    )


def _first_autoencoder(plan: Callable[[], DataPlan], recipe: Recipe, out_dir: Path, world: World) -> Autoencoder:
    if recipe.autoencoder == "patch":
        return fit_autoencoder(plan(), recipe)
    if recipe.autoencoder != "tiny-vae":
        return VAE.open(recipe.autoencoder)
    from training.vae.training import VAE_RECIPES, train_vae

    if world.first:
        rows = plan()
        pictures = [to_uint8(x) for x in sample_images(rows, recipe)]
        chosen = VAE_RECIPES["tiny"].change(channels=recipe.channels)
        smallest = min(min(part.shape[-2:]) for part in pictures)  # a multiple of the factor
        chosen = chosen.change(side=min(chosen.side, smallest))
        train_vae(out_dir / "vae", pictures, chosen, seed=rows.seed, steps=recipe.autoencoder_steps or None)
    world.wait()
    return VAE.open(str(out_dir / "vae" / "final"))


def fit_autoencoder(plan: DataPlan, recipe: Recipe) -> PatchAutoencoder:
    """Fit on targets and references of a sample of the plan's rows."""
    return fit(sample_images(plan, recipe), channels=recipe.channels, factor=recipe.factor)


def sample_images(plan: DataPlan, recipe: Recipe) -> list[Tensor]:
    """Targets and references of a sample of the plan's rows, in [-1, 1], [N, 3, H, W] each."""
    reader = Loader(plan, _only_read, resolution=recipe.resolution, unit=recipe.factor)
    wanted: dict[tuple[int, int], list[int]] = {}
    for row in plan.sample(recipe.autoencoder_rows):
        wanted.setdefault((row.shard, row.group), []).append(row.row)
    images = []
    for (shard, number), rows in sorted(wanted.items()):
        try:
            group = reader.read(shard, number)
        except ShardError as error:
            if plan.on_error == "raise":
                raise
            log.warning("skipped a row group while reading pictures for the autoencoder: %s", error)
            continue
        images += [to_unit(group.images[rows]), to_unit(group.references[rows].flatten(0, 1))]
    return [x for x in images if len(x)]


def _only_read(group: RowGroup) -> NoReturn:
    raise NotImplementedError("an autoencoder is fitted on row groups as they are read")
