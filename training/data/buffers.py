"""Large tensors in memory that is used again: fresh memory costs a page fault every 4 KB."""

from __future__ import annotations

import math
import weakref
from collections import defaultdict, deque
from collections.abc import Sequence
from threading import Lock

import numpy as np
import torch
from torch import Tensor

SMALL = 1 << 20  # bytes; below, allocators keep what was freed


class Buffers:
    """Memory that its last tensor left, by size: together with what is in use, never more than was in use at once.

    Threads may share it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._returned: deque[np.ndarray] = deque()  # by whichever thread dropped the last tensor
        self._free: dict[int, list[np.ndarray]] = defaultdict(list)
        self._used = self._kept = self._most = 0  # bytes in use, free, and in use at once so far

    def empty(self, shape: Sequence[int], *, dtype: torch.dtype) -> Tensor:
        """As `torch.empty` on the CPU. The memory is used again once no tensor refers to it."""
        size = math.prod(shape) * dtype.itemsize
        if size < SMALL:
            return torch.empty(tuple(shape), dtype=dtype)
        with self._lock:
            memory = self._taken(size)
        held = memory[:]  # tensors refer to this array, which ends with the last of them
        weakref.finalize(held, self._returned.append, memory).atexit = False
        return torch.from_numpy(held).view(dtype).view(tuple(shape))

    def stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """As `torch.stack`; pictures keep the channels of a pixel side by side."""
        first = tensors[0]
        if first.dim() > 2 and not first.is_contiguous() and first.movedim(-3, -1).is_contiguous():
            return self.stack([x.movedim(-3, -1) for x in tensors]).movedim(-1, -3)
        return torch.stack(list(tensors), out=self.empty((len(tensors), *first.shape), dtype=first.dtype))

    def _taken(self, size: int) -> np.ndarray:
        while self._returned:
            memory = self._returned.popleft()
            self._free[memory.nbytes].append(memory)
            self._used, self._kept = self._used - memory.nbytes, self._kept + memory.nbytes
        self._used += size
        self._most = max(self._most, self._used)
        if self._free[size]:
            self._kept -= size
            return self._free[size].pop()
        while self._kept + self._used > self._most:
            other = next(s for s, same in self._free.items() if same)
            self._free[other].pop()
            self._kept -= other
        return np.empty(size, np.uint8)
