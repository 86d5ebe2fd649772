"""Writes a safetensors file a tensor at a time: the whole is never in memory."""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

# As the format names them: https://github.com/huggingface/safetensors#format
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class TensorFile:
    """A safetensors file of the tensors {name: (shape, dtype)}, which `write` fills in this order.

    The file appears whole or not at all, when the block ends. `size` and `sha256` are those of what is written.
    """

    def __init__(self, path: Path, tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
        self.path, self._tensors, self._left = path, tensors, list(tensors)
        self._temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        self.size, self._hash = 0, hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Digest of the bytes written, as 64 hex digits."""
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        header, end = {}, 0
        for name, (shape, dtype) in self._tensors.items():
            start, end = end, end + math.prod(shape) * dtype.itemsize
            header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight
        self._file = open(self._temporary, "wb")
        self._append(memoryview(len(text).to_bytes(8, "little") + text))
        return self

    def write(self, name: str, tensor: Tensor) -> None:
        """Append the next tensor. Errors: `ValueError` for another name, shape or dtype than announced."""
        shape, dtype = self._tensors[name]
        if not self._left or self._left[0] != name or tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise ValueError(f"{name} {tuple(tensor.shape)} {tensor.dtype} is not the next tensor, {self._left[:1]}")
        self._left.pop(0)
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        self._append(flat.numpy().data)

    def _append(self, data: memoryview) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += data.nbytes

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if kind is None and not self._left:
            os.replace(self._temporary, self.path)
            return
        self._temporary.unlink(missing_ok=True)
        if kind is None:
            raise ValueError(f"{self._left[0]} was not written")
