"""How much memory a training run takes on each GPU: FSDP2 over all of them, with and without recomputation and LoRA.

An estimate of what the loops of this package keep: float32 masters, moving average, gradients and AdamW's moments,
sharded; bf16 copies of the weights, as FSDP gathers or autocast makes them; and what is saved for the backward pass.
In main memory, an intermediate checkpoint is a copy of all that a step changes, until it is written. The tests compare
each part with a count on the meta device. Not counted: condition encoder, autoencoder, and what the allocator wastes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flywheel.core.errors import UsageError
from training.lora import TARGETS
from training.models.mmdit import PRESETS, TIME_FEATURES, MMDiTConfig

GB = 10**9
FLOAT, HALF = 4, 2  # bytes of a value
PARTS = ("weights", "half", "ema", "gradients", "accumulated", "optimizer", "activations")
OVERHEAD = 2 * GB  # of CUDA, NCCL and kernels' workspaces, on each GPU


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on each GPU of one way to train a model; parameters, trained: weights in all; half: bf16 copies of them.

    accumulated: whole float32 gradients, summed over a step's forward passes before GPUs sum them. host: main memory
    for each GPU, of the copy that a checkpoint is written from while training goes on; not in `total`.
    """

    model: str
    way: str  # full | lora
    recompute: bool
    parameters: int
    trained: int
    weights: int
    half: int
    ema: int
    gradients: int
    accumulated: int
    optimizer: int
    activations: int
    host: int

    @property
    def total(self) -> int:
        """All of it, with a margin for the device's own."""
        return sum(getattr(self, part) for part in PARTS) + OVERHEAD

    def row(self, memory: float) -> dict[str, Any]:
        """For a table: GB of each part, and whether it fits into `memory` GB."""
        values = {**asdict(self), "total": self.total}
        sizes = {k: round(values[k] / GB, 2) for k in (*PARTS, "total", "host")}
        return {**values, **sizes, "fits": self.total <= memory * GB}


def plans(
    *,
    gpus: int,
    lora_rank: int,
    side: int,
    rows: int,
    text_tokens: int,
    factor: int = 16,
    names: Sequence[str] = (),
    accumulate: bool = True,
) -> Iterator[MemoryPlan]:
    """The plans of each known model: full and LoRA, with and without recomputation.

    rows: of one forward pass on a GPU, T2I, of side × side pixels and `text_tokens` tokens; factor: pixels per latent
    pixel. accumulate: a step takes several forward passes, and reduces gradients after the last one.
    Errors: `UsageError` for an unknown model.
    """
    if unknown := [name for name in names if name not in PRESETS]:
        raise UsageError(f"unknown model {unknown[0]!r}: use {', '.join(PRESETS)}")
    tokens = rows * (text_tokens + (side // factor) ** 2)
    for name in names or PRESETS:
        for rank in (0, lora_rank):
            for recompute in (False, True):
                yield plan(
                    name,
                    PRESETS[name],
                    gpus=gpus,
                    rank=rank,
                    tokens=tokens,
                    recompute=recompute,
                    accumulate=accumulate,
                )


def plan(
    name: str, config: MMDiTConfig, *, gpus: int, rank: int, tokens: int, recompute: bool, accumulate: bool = True
) -> MemoryPlan:
    """The plan of one way to train; rank 0 trains every weight; tokens: of one forward pass on a GPU."""
    whole = parameters(config)
    own = adapter_parameters(config, rank) if rank else whole
    held = whole + own if rank else whole

    def shard(values: int) -> int:
        return -(-values // gpus)

    return MemoryPlan(
        model=name,
        way="lora" if rank else "full",
        recompute=recompute,
        parameters=whole,
        trained=own,
        weights=shard(FLOAT * held),
        half=HALF * held,  # blocks keep theirs from the forward to the backward pass
        ema=shard(FLOAT * own),
        gradients=shard(FLOAT * own),
        accumulated=FLOAT * own if accumulate and gpus > 1 else 0,
        optimizer=shard(2 * FLOAT * own),
        activations=HALF * tokens * saved_values(config, rank, recompute=recompute),
        host=shard(4 * FLOAT * own),  # weights, moving average, two moments
    )


def parameters(config: MMDiTConfig) -> int:
    """Number of weights of an `MMDiT`."""
    width, condition = config.width, config.condition_dim
    modulation = 4 * width**2
    outside = 2 * config.channels * width  # image in and out
    outside += condition + condition * width + width**2  # text
    outside += TIME_FEATURES * width + width**2  # time
    outside += width**2 + (modulation if config.modulation == "shared" else 0)
    block = sum(n * k for n, k in _layers(config).values()) + 2 * config.head_dim
    return outside + config.depth * (block + (modulation if config.modulation == "per_block" else 0))


def adapter_parameters(config: MMDiTConfig, rank: int, targets: Sequence[str] = TARGETS) -> int:
    """Number of weights of LoRA adapters."""
    return config.depth * sum(rank * (n + k) for name, (n, k) in _layers(config).items() if name in targets)


def saved_values(config: MMDiTConfig, rank: int, *, recompute: bool) -> int:
    """Values per token that all blocks save for the backward pass, and what one block computes again."""
    width, hidden = config.width, config.mlp_ratio * config.width
    own = _BLOCK * width + _HIDDEN * hidden + len(TARGETS) * rank
    if not recompute:
        return config.depth * own
    return config.depth * _KEPT * width + own


# Values per token that a block saves, in units of the stream's width (its input, the norms' outputs, queries, keys and
# values before and after rotation, attention's output twice, two branches) and of the feed-forward's (gate, up, their
# product); and what stays of them with recomputation. The tests count them on the meta device.
_BLOCK, _HIDDEN, _KEPT = 13, 3, 8


def _layers(config: MMDiTConfig) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of a block's linear layers."""
    width, hidden = config.width, config.mlp_ratio * config.width
    shapes = ((3 * width, width), (width, width), (2 * hidden, width), (width, hidden))
    return dict(zip(TARGETS, shapes, strict=True))
