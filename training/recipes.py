"""Training phases as data: pre-training, continual pre-training and SFT of the report, and the tiny CPU recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from flywheel.core.config import read_toml
from flywheel.core.errors import UsageError
from flywheel.core.schema import CAPTION_KINDS
from training.recipe_file import named

PRECISIONS = ("auto", "fp32", "bf16")
MACHINE = (
    "micro_tokens", "precision", "activation_checkpointing", "compile", "checkpoint_every", "validate_every",
    "sample_every", "sample_rows", "latents", "on_error",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One phase. [S] report (Table 2), [D] our decision where nothing public says it.

    stages: curation stages whose shards it reads [D: S1-S3, S4-S5, S6].
    batch: rows per global batch by resolution bucket [S].
    resolution: pixels trained at, by bucket (the tiny recipe trains smaller than its bucket).
    t2i_share: share of T2I rows, the rest is TI2I [S].
    caption_shares: kind → share of the captions drawn for a picture that has several; of kinds that it lacks, the others
        take the share [D].
    dropout: share of rows whose text is dropped, for guidance [S: 0.1].
    time_mean, time_std: of the logit-normal t [D].
    learning_rate [S], warmup steps [D], final_learning_rate: share of it reached linearly at the end [D: 1].
    weight_decay, clip: AdamW's and the gradient norm's [S: 0.001, 1.0]; betas, ema [D].
    model: MMDiT preset. channels, factor: the autoencoder's latent channels and pixels per latent pixel.
    autoencoder: "patch" (fitted on the data), "tiny-vae" (trained on the data first), or a VAE by folder, pipeline
        folder or hub tag.
    condition: encoder, "minilm" or "qwen3-vl:" and a folder, pipeline folder or hub tag.
    text_tokens: length that captions are padded to (longer ones are kept); 0 pads only to a batch's longest, as 2.1.
    schedule: time grid of sampling, "uniform" or the open 2.1 release's "dynamic_shift".
    window: row groups shuffled together [D]. autoencoder_rows: rows the autoencoder is fitted on [D].
    validation_rows: upper bound. latents_dtype: of cached latents.

    The rest adapts a run to its machine and may change when the run resumes [D]:
    micro_tokens: upper bound of image tokens per forward pass and process (but at least one row); 0: no limit.
    precision: "fp32", "bf16" (autocast over fp32 masters), or "auto", bf16 on a GPU that has it.
    activation_checkpointing: recompute blocks in the backward pass. compile: by torch.compile.
    checkpoint_every, validate_every, sample_every: steps, 0 for never (validation and samples).
    sample_rows: held-out rows drawn in a grid.
    latents: folder or s3:// address of latents cached by `flywheel latents`; "" encodes while training.
    on_error: "raise", or "skip": unreadable rows are replaced by neighbours, logged, and counted in metrics.
    """

    name: str
    stages: tuple[str, ...]
    steps: int
    batch: Mapping[int, int]
    t2i_share: float
    learning_rate: float
    resolution: Mapping[int, int]
    model: str
    channels: int
    factor: int
    autoencoder: str = "patch"
    condition: str = "minilm"
    text_tokens: int = 24
    caption_shares: Mapping[str, float] = field(
        default_factory=lambda: {"general": 0.4, "text": 0.2, "knowledge": 0.2, "structured": 0.2}
    )
    dropout: float = 0.1
    weight_decay: float = 0.001
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = 1000
    final_learning_rate: float = 1.0
    ema: float = 0.9999
    time_mean: float = 0.0
    time_std: float = 1.0
    schedule: str = "uniform"
    window: int = 8
    autoencoder_rows: int = 1024
    validation_rows: int = 64
    latents_dtype: str = "float32"
    micro_tokens: int = 0
    precision: str = "auto"
    activation_checkpointing: bool = False
    compile: bool = False
    checkpoint_every: int = 1000
    validate_every: int = 1000
    sample_every: int = 0
    sample_rows: int = 8
    latents: str = ""
    on_error: Literal["raise", "skip"] = "raise"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision is {self.precision!r}: use one of {', '.join(PRECISIONS)}")
        if self.on_error not in ("raise", "skip"):
            raise UsageError(f"on_error is {self.on_error!r}: use raise or skip")
        if unknown := sorted(set(self.caption_shares) - set(CAPTION_KINDS)):
            raise UsageError(f"caption_shares: unknown kind {unknown[0]!r}: use {', '.join(CAPTION_KINDS)}")
        if any(share < 0 for share in self.caption_shares.values()):
            raise UsageError(f"caption_shares: shares must not be negative: {dict(self.caption_shares)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and TOML: mapping keys as strings."""
        plain = asdict(self)
        for name in ("batch", "resolution"):
            plain[name] = {str(k): v for k, v in sorted(plain[name].items())}
        return plain

    def method(self) -> dict[str, Any]:
        """The plain values that determine what is learned; with other values it is another run."""
        return {k: v for k, v in self.to_dict().items() if k not in MACHINE}

    def change(self, **changes: Any) -> Recipe:
        """The recipe with changed values."""
        return replace(self, **changes)


_qwen = partial(
    Recipe,
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
    "pretrain": _qwen(
        name="pretrain",
        stages=("S1", "S2", "S3"),
        steps=700_000,
        batch={256: 32_000, 512: 16_000},
        resolution={256: 256, 512: 512},
        t2i_share=0.9,
        learning_rate=1e-4,
    ),
    "continual": _qwen(
        name="continual",
        stages=("S4", "S5"),
        steps=250_000,
        batch={512: 16_000, 1024: 8_000, 2048: 4_000},
        resolution={512: 512, 1024: 1024, 2048: 2048},
        t2i_share=0.7,
        learning_rate=2e-5,
    ),
    "sft": _qwen(
        name="sft",
        stages=("S6",),
        steps=10_000,
        batch={512: 16_000, 1024: 8_000, 2048: 4_000},
        resolution={512: 512, 1024: 1024, 2048: 2048},
        t2i_share=0.7,
        learning_rate=1e-5,
    ),
    "tiny": Recipe(
        name="tiny",
        stages=("S1", "S2", "S3"),
        steps=1000,
        batch={256: 16},
        resolution={256: 64},
        t2i_share=0.9,
        learning_rate=2e-3,
        model="tiny",
        channels=48,
        factor=8,
        warmup=20,
        ema=0.99,
        checkpoint_every=100,
        validate_every=100,
    ),
}


def recipe(name: str, **changes: Any) -> Recipe:
    """A named recipe, with changes. Errors: `UsageError` for unknown names."""
    return named(RECIPES, name, changes)


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values: all of them, or changes to the recipe named `base`. Errors: `UsageError`."""
    values = dict(values)
    for name in ("batch", "resolution"):
        if name in values:
            values[name] = {int(k): int(v) for k, v in values[name].items()}
    for name in ("stages", "betas"):
        if name in values:
            values[name] = tuple(values[name])
    base = values.pop("base", None)
    if base is not None:
        return recipe(base, **values)
    try:
        return Recipe(**values)
    except TypeError as error:
        raise UsageError(f"not a recipe: {error}") from error


def load_recipe(path: Path) -> Recipe:
    """A recipe from a TOML file. Errors: `UsageError` when it cannot be read."""
    try:
        return from_dict(read_toml(path))
    except ValueError as error:
        raise UsageError(f"recipe {path} cannot be read: {error}") from error
