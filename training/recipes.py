"""Recipes as data: the report's curriculum of six stages (Table 2), its phases, and the tiny CPU recipe."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from flywheel.core.config import read_toml
from flywheel.core.errors import UsageError
from flywheel.core.ranges import Above, Amount, Count, Finite, Positive, Share, Span, require_ranges
from flywheel.core.schema import CAPTION_KINDS, STAGES
from training.lora import DEFAULTS, TARGETS, identified, require_lora
from training.recipe_file import known_recipe
from training.schedules import SCHEDULES

PRECISIONS = ("auto", "fp32", "bf16")
LATENTS_DTYPES = ("float32", "float16", "bfloat16")
MACHINE = (
    "micro_tokens", "reduce_every", "precision", "activation_checkpointing", "compile", "checkpoint_every",
    "validate_every", "sample_every", "sample_rows", "latents", "on_error",
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One stage: it trains on the rows that curation admitted to the stage of the same name, in every bucket of theirs.

    t2i_share: share of T2I rows, the rest is TI2I.
    """

    name: str
    steps: Count
    t2i_share: Share
    learning_rate: Amount

    def __post_init__(self) -> None:
        if self.name not in STAGES:
            raise UsageError(f"unknown stage {self.name!r}: use {', '.join(STAGES)}")
        require_ranges(self, f"{self.name}.")


_STAGE_SETTINGS = tuple(f.name for f in fields(Stage) if f.name != "name")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A curriculum. [S] report (Table 2), [D] our decision where nothing public says it.

    stages: in the order of training. Weights, optimiser and EMA go on from one to the next.
    batch: rows per global batch by resolution bucket [S]; rows of other buckets are not read.
    resolution: pixels trained at, by bucket (the tiny recipe trains smaller than its buckets).
    caption_shares: kind → share of the captions drawn for a picture that has several; missing kinds fall to the
        others [D].
    dropout: share of rows whose text is dropped, for guidance [S: 0.1].
    time_mean, time_std: of the logit-normal t [D].
    warmup: steps at the start of the run [D]; final_learning_rate: share of each stage's rate reached linearly at the
        end of the run [D: 1].
    weight_decay, clip: AdamW's and the gradient norm's [S: 0.001, 1.0]; betas, ema [D].
    model: MMDiT preset. channels, factor: the autoencoder's latent channels and pixels per latent pixel.
    autoencoder: "patch" (fitted on the data), "tiny-vae" (trained on the data first), or a VAE by folder, pipeline
        folder or hub tag.
    autoencoder_steps: of "tiny-vae"; 0: as many as its recipe says.
    condition: encoder, "minilm", "qwen3-vl:tiny", or "qwen3-vl:" and a folder, pipeline folder or hub tag.
    text_tokens: length that captions are padded to (longer ones are kept); 0 pads only to a batch's longest, as 2.1.
    schedule: time grid of sampling, "uniform" or the open 2.1 release's "dynamic_shift".
    window: row groups shuffled together [D]. autoencoder_rows: rows the autoencoder is fitted on [D].
    validation_rows: upper bound. latents_dtype: of cached latents.
    lora_rank: of adapters, the only weights that train, on top of the checkpoint that the run starts from; 0 trains
        every weight. lora_alpha: 0 is twice the rank. lora_targets: layers of each block.

    The rest adapts a run to its machine and may change when the run resumes [D]:
    micro_tokens: upper bound of image tokens per forward pass and process (but at least one row); 0: no limit.
    reduce_every: sum gradients over processes after every forward pass, not once a step: four bytes a weight less on
        each GPU, and more traffic.
    precision: "fp32", "bf16" (autocast over fp32 masters), or "auto", bf16 on a GPU that has it.
    activation_checkpointing: recompute blocks in the backward pass. compile: by torch.compile.
    checkpoint_every, validate_every, sample_every: steps, 0 for never (validation and samples).
    sample_rows: held-out rows drawn in a grid.
    latents: folder or s3:// address of latents cached by `flywheel latents`; "" encodes while training.
    on_error: "raise", or "skip": unreadable rows are replaced by neighbours, logged, and counted in metrics.
    """

    name: str
    stages: tuple[Stage, ...]
    batch: Annotated[Mapping[int, int], Span(1)]
    resolution: Annotated[Mapping[int, int], Span(1)]
    model: str
    channels: Positive
    factor: Positive
    autoencoder: str = "patch"
    autoencoder_steps: Count = 0
    condition: str = "minilm"
    text_tokens: Annotated[int, Span(0, 16384)] = 24
    caption_shares: Annotated[Mapping[str, float], Span(0)] = field(
        default_factory=lambda: {"general": 0.4, "text": 0.2, "knowledge": 0.2, "structured": 0.2}
    )
    dropout: Share = 0.1
    weight_decay: Amount = 0.001
    clip: Above = 1.0
    betas: Annotated[tuple[float, float], Span(0, 1, below=True)] = (0.9, 0.95)
    warmup: Count = 1000
    final_learning_rate: Amount = 1.0
    ema: Share = 0.9999
    time_mean: Finite = 0.0
    time_std: Amount = 1.0
    schedule: str = "uniform"
    window: Positive = 8
    autoencoder_rows: Positive = 1024
    validation_rows: Count = 64
    latents_dtype: str = "float32"
    lora_rank: Count = 0
    lora_alpha: Amount = 0.0
    lora_targets: tuple[str, ...] = TARGETS
    micro_tokens: Count = 0
    reduce_every: bool = False
    precision: str = "auto"
    activation_checkpointing: bool = False
    compile: bool = False
    checkpoint_every: Count = 1000
    validate_every: Count = 1000
    sample_every: Count = 0
    sample_rows: Count = 8
    latents: str = ""
    on_error: Literal["raise", "skip"] = "raise"

    def __post_init__(self) -> None:
        require_ranges(self)
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision is {self.precision!r}: use one of {', '.join(PRECISIONS)}")
        if self.latents_dtype not in LATENTS_DTYPES:
            raise UsageError(f"latents_dtype is {self.latents_dtype!r}: use one of {', '.join(LATENTS_DTYPES)}")
        if self.schedule not in SCHEDULES:
            raise UsageError(f"schedule is {self.schedule!r}: use one of {', '.join(SCHEDULES)}")
        object.__setattr__(self, "lora_targets", tuple(self.lora_targets))  # files and presets give a list
        require_lora(self)
        if self.on_error not in ("raise", "skip"):
            raise UsageError(f"on_error is {self.on_error!r}: use raise or skip")
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"recipe {self.name} has the stages {', '.join(names) or '(none)'}: name each once")
        if unknown := sorted(set(self.caption_shares) - set(CAPTION_KINDS)):
            raise UsageError(f"caption_shares: unknown kind {unknown[0]!r}: use {', '.join(CAPTION_KINDS)}")

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def reads(self, stages: Collection[str], bucket: int) -> bool:
        """Does it train on rows that curation admitted to any of these stages, in this bucket?"""
        return bucket in self.batch and any(stage.name in stages for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and TOML: mapping keys as strings."""
        plain = asdict(self)
        for name in ("batch", "resolution"):
            plain[name] = {str(k): v for k, v in sorted(plain[name].items())}
        return plain

    def method(self) -> dict[str, Any]:
        """The plain values that determine what is learned; with other values it is another run."""
        values = identified(self.to_dict(), *DEFAULTS)
        own = values if self.autoencoder_steps else values.keys() - {"autoencoder_steps"}  # as before there were any
        return {k: v for k, v in values.items() if k in own and k not in MACHINE}

    def change(self, **changes: Any) -> Recipe:
        """The recipe with changed values. Errors: `UsageError`.

        stages: names of those to keep. steps: of all stages together, which keep their proportions. t2i_share and
        learning_rate: of every stage. A stage's name: changes to that stage.

        >>> recipe("tiny").change(stages=("S1", "S2"), steps=100, S2={"t2i_share": 0.5}).stages[1].t2i_share
        0.5
        """
        stages, values = self.stages, dict(changes)
        if isinstance(chosen := values.pop("stages", None), Sequence):
            stages = tuple(_chosen(self, name) if isinstance(name, str) else name for name in chosen)
        for name in ("t2i_share", "learning_rate"):
            if name in values:
                wanted = {name: values.pop(name)}
                stages = tuple(replace(s, **wanted) for s in stages)
        for stage in [s for s in stages if s.name in values]:
            wanted = values.pop(stage.name)
            _require_known(f"stage {stage.name} of recipe {self.name}", wanted, _STAGE_SETTINGS)
            stages = tuple(replace(s, **wanted) if s is stage else s for s in stages)
        if (steps := values.pop("steps", None)) is not None:
            shares = divided(steps, [s.steps for s in stages])
            stages = tuple(replace(s, steps=n) for s, n in zip(stages, shares, strict=True))
        _require_known(f"recipe {self.name}", values, [f.name for f in fields(Recipe)])
        return replace(self, stages=stages, **values)


def divided(total: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers in proportion to the weights that sum to `total`; all equal for weights of 0."""
    weights = weights if sum(weights) else [1] * len(weights)
    ends = [(2 * total * sum(weights[:n]) + sum(weights)) // (2 * sum(weights)) for n in range(len(weights) + 1)]
    return [end - start for start, end in zip(ends, ends[1:])]


def _chosen(recipe: Recipe, name: str) -> Stage:
    found = next((s for s in recipe.stages if s.name == name), None)
    if found is None:
        raise UsageError(f"recipe {recipe.name} has no stage {name!r}: use {', '.join(s.name for s in recipe.stages)}")
    return found


def _require_known(owner: str, values: Mapping[str, Any], known: Iterable[str]) -> None:
    if unknown := sorted(values.keys() - set(known)):
        raise UsageError(f"{owner} has no {', '.join(unknown)}")


# [S], Table 2: batches, ratios (0.9 : 0.1 and 0.7 : 0.3), rates, and the steps of S1–S3, S4–S5 and S6 together. S1 is
# T2I alone [S, figure 6]. The steps of single stages [D].
_CURRICULUM = Recipe(
    name="qwen-image-2",
    stages=(
        Stage("S1", 300_000, t2i_share=1.0, learning_rate=1e-4),
        Stage("S2", 200_000, t2i_share=0.9, learning_rate=1e-4),
        Stage("S3", 200_000, t2i_share=0.9, learning_rate=1e-4),
        Stage("S4", 150_000, t2i_share=0.7, learning_rate=2e-5),
        Stage("S5", 100_000, t2i_share=0.7, learning_rate=2e-5),
        Stage("S6", 10_000, t2i_share=0.7, learning_rate=1e-5),
    ),
    batch={256: 32_000, 512: 16_000, 1024: 8_000, 2048: 4_000},
    resolution={256: 256, 512: 512, 1024: 1024, 2048: 2048},
    model="qwen-image-2.1",
    channels=64,
    factor=16,
    autoencoder="Qwen/Qwen-Image-2.1",
    condition="qwen3-vl:Qwen/Qwen-Image-2.1",
    text_tokens=0,
    schedule="dynamic_shift",
    micro_tokens=32_768,
    activation_checkpointing=True,
    sample_every=1000,
)

RECIPES: dict[str, Recipe] = {
    "qwen-image-2": _CURRICULUM,
    "pretrain": _CURRICULUM.change(name="pretrain", stages=("S1", "S2", "S3")),
    "continual": _CURRICULUM.change(name="continual", stages=("S4", "S5")),
    "sft": _CURRICULUM.change(name="sft", stages=("S6",)),
    # The same rates in proportion, every bucket at 64 pixels.
    "tiny": Recipe(
        name="tiny",
        stages=(
            Stage("S1", 300, t2i_share=1.0, learning_rate=2e-3),
            Stage("S2", 250, t2i_share=0.9, learning_rate=2e-3),
            Stage("S3", 250, t2i_share=0.9, learning_rate=2e-3),
            Stage("S4", 80, t2i_share=0.7, learning_rate=4e-4),
            Stage("S5", 80, t2i_share=0.7, learning_rate=4e-4),
            Stage("S6", 40, t2i_share=0.7, learning_rate=2e-4),
        ),
        batch={256: 16, 512: 16, 1024: 16, 2048: 16},
        resolution={256: 64, 512: 64, 1024: 64, 2048: 64},
        model="tiny",
        channels=48,
        factor=8,
        warmup=20,
        ema=0.99,
        checkpoint_every=100,
        validate_every=100,
    ),
}
# The parts of the open 2.1 release at small size, which diffusers opens: as many image tokens as `tiny`, of 16 pixels.
RECIPES["tiny-2.1"] = RECIPES["tiny"].change(
    name="tiny-2.1",
    resolution={256: 128, 512: 128, 1024: 128, 2048: 128},
    model="tiny-2.1",
    channels=64,
    factor=16,
    autoencoder="tiny-vae",
    condition="qwen3-vl:tiny",
    text_tokens=0,
    schedule="dynamic_shift",
)


def recipe(name: str, **changes: Any) -> Recipe:
    """A named recipe, with changes (see `Recipe.change`). Errors: `UsageError` for unknown names and values."""
    return known_recipe(RECIPES, name).change(**changes)


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values: all of them, or changes to the recipe named `base`. Errors: `UsageError`."""
    values = dict(values)
    for name in ("batch", "resolution"):
        if name in values:
            if not isinstance(values[name], Mapping):
                raise UsageError(f"{name} is {values[name]!r}: give a table of buckets, such as {{ 256 = 16 }}")
            values[name] = {int(k): v for k, v in values[name].items()}
    for name in ("stages", "betas"):
        if name in values:
            values[name] = tuple(values[name])
    base = values.pop("base", None)
    if base is not None:
        return recipe(base, **values)
    try:
        return Recipe(**values | {"stages": tuple(Stage(**stage) for stage in values["stages"])})
    except (TypeError, KeyError) as error:
        raise UsageError(f"not a recipe: {error}") from error


def load_recipe(path: Path) -> Recipe:
    """A recipe from a TOML file. Errors: `UsageError` when it cannot be read."""
    try:
        return from_dict(read_toml(path))
    except ValueError as error:
        raise UsageError(f"recipe {path} cannot be read: {error}") from error
