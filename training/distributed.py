"""Training one model in several processes: their ranks, each one's rows, and the sharded weights.

torchrun or Ray Train starts them; FSDP2 shards weights, gradients and optimiser. The model's code is unaware of it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flywheel.core.errors import UsageError
from training.models.mmdit import MMDiT
from training.recipes import Recipe

BLOCK_METHODS = ("project", "finish")  # where a block's weights are used
T = TypeVar("T")
K = TypeVar("K")


@dataclass(frozen=True)
class World:
    """This process among those that train one model: `rank` of `size`, computing on `device`.

    group: in which they talk; None for the one that all of a start share.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    group: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Is this the process that writes checkpoints and metrics?"""
        return self.rank == 0

    def sum(self, value: float) -> float:
        """The sum over all processes."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total, group=self.group)
        return total.item()

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each parameter the sum of its gradients in all processes; one without a gradient counts as zeros."""
        for parameter in parameters if self.size > 1 else ():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad, group=self.group)

    def each(self, work: Callable[[], T]) -> list[T]:
        """What `work` returns in each process, by rank; every process must call it, and gets it.

        Errors: a `UsageError` in one process is raised in all of them; if several fail, that of the lowest rank.
        """
        if self.size == 1:
            return [work()]
        mine: tuple[T | None, UsageError | None]
        try:
            mine = work(), None
        except UsageError as error:
            mine = None, error
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, mine, group=self.group)
        for failure in (failure for _, failure in parts if failure is not None):
            raise failure
        return [value for value, _ in parts]

    def merged(self, work: Callable[[], Mapping[K, T]]) -> dict[K, T]:
        """The entries that `work` returns in all processes, together; as `each`."""
        return {name: value for part in self.each(work) for name, value in part.items()}

    def by_first(self, work: Callable[[], object]) -> None:
        """Let the first process do something, and the others wait until it is done. Errors: as `each`."""
        self.each(work if self.first else lambda: None)

    def own(self, rows: Sequence[T]) -> Sequence[T]:
        """This process's rows: every `size`-th, so that all processes get as many, but for one, of each kind."""
        return rows[self.rank :: self.size]

    def aside(self) -> World:
        """The same processes in a group of their own, for a thread beside the training; every process must call it."""
        if self.size == 1:
            return self
        return replace(self, device=torch.device("cpu"), group=dist.new_group(backend="gloo"))

    def wait(self) -> None:
        """Wait until every process gets here."""
        if self.size > 1:
            dist.barrier(group=self.group)


@contextmanager
def joined() -> Iterator[World]:
    """The world of torchrun's environment or of an existing process group; else this process alone."""
    device = choose_device()
    ours = not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if ours:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device) if dist.is_initialized() else World(device=device)
    finally:
        if ours:
            dist.destroy_process_group()


def choose_device() -> torch.device:
    """This process's GPU where there is one (CUDA_VISIBLE_DEVICES= hides them), else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def half_precision(recipe: Recipe, device: torch.device) -> bool:
    """Does the forward pass compute in bf16?"""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.precision == "bf16" or (recipe.precision == "auto" and able)


def computing(recipe: Recipe, device: torch.device) -> torch.autocast:
    """The context of a forward pass: bf16 where `half_precision` says so, weights and loss stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=half_precision(recipe, device))


def own_rows(rows: Sequence[T], world: World, at_once: int = 0) -> Iterator[tuple[list[T], int]]:
    """This process's share of rows of one layout, `at_once` at a time (0: all): (rows, how many of them count).

    Every process gets equally many parts of the same sizes, because a pass with sharded weights needs all processes. If
    rows do not divide evenly, the last one is repeated at the end and does not count. A share is a run of neighbours,
    which the plan draws from the same row groups, so few processes read the same row group.
    """
    each = -(-len(rows) // world.size)
    own = list(rows[world.rank * each : (world.rank + 1) * each])
    counted = len(own)
    own += [rows[-1]] * (each - counted)
    for start in range(0, each, at_once or each):
        part = own[start : start + (at_once or each)]
        yield part, max(0, min(counted - start, len(part)))


def parallelise(model: MMDiT, recipe: Recipe, world: World) -> MMDiT:
    """Move `model` to this process's device and apply the recipe's switches and FSDP2; returns it.

    Gathered weights are kept from forward to backward pass, because a block uses them before and after its attention.
    Blocks are compiled one by one, before and after their attention: all share few graphs, for any length of text.
    """
    if recipe.compile:
        compile_blocks(model)
    if recipe.activation_checkpointing:
        for block in model.blocks:
            for name in BLOCK_METHODS:
                setattr(block, name, partial(checkpoint, getattr(block, name), use_reentrant=False))
    return _sharded(model, recipe, world) if world.size > 1 else model.to(world.device)


def compile_blocks(model: MMDiT, **options: Any) -> None:
    """Compile each block's two parts, before and after its attention. options: of `torch.compile`."""
    for block in model.blocks:
        for name in BLOCK_METHODS:
            setattr(block, name, torch.compile(getattr(block, name), fullgraph=True, **options))


def _sharded(model: MMDiT, recipe: Recipe, world: World) -> MMDiT:
    # Imported here: FSDP2 takes seconds to import, more than a short run on one device trains.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    # This warning is about changing a block's output in place, which nothing here does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(world.device.type, (world.size,))
    half = torch.bfloat16 if half_precision(recipe, world.device) else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        if block.modulation is not None:
            fully_shard(block.modulation, mesh=mesh, mp_policy=policy)
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        for name in BLOCK_METHODS:
            register_fsdp_forward_method(block, name)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


def reduce_gradients(model: MMDiT, now: bool) -> None:
    """Whether the next backward pass of a sharded model sums gradients over processes, or keeps its own for later."""
    switch = getattr(model, "set_requires_gradient_sync", None)  # only a sharded model has one
    if switch is not None:
        switch(now)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; to a GPU it is copied while the CPU goes on."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded; every process must call it."""
    whole = getattr(tensor, "full_tensor", None)  # only a DTensor has one
    return whole() if whole else tensor
