"""A file that is written a tensor at a time is a safetensors file like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training.tensor_file import TensorFile

TENSORS = {
    "b": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "a": torch.linspace(0, 1, 5),
    "empty": torch.zeros(0, 4),
    "one": torch.tensor(7, dtype=torch.int64),
}


def announced() -> dict:
    return {k: (tuple(v.shape), v.dtype) for k, v in TENSORS.items()}


def test_safetensors_reads_it(tmp_path: Path):
    with TensorFile(tmp_path / "x.safetensors", announced()) as file:
        for name, tensor in TENSORS.items():
            file.write(name, tensor)
    read = load_file(tmp_path / "x.safetensors")
    assert read.keys() == TENSORS.keys() and all(torch.equal(read[k], v) for k, v in TENSORS.items())


def test_a_file_that_is_not_whole_never_appears(tmp_path: Path):
    with pytest.raises(ValueError, match="a was not written"), TensorFile(tmp_path / "x", announced()) as file:
        file.write("b", TENSORS["b"])
    with pytest.raises(ValueError, match="is not the next tensor"), TensorFile(tmp_path / "x", announced()) as file:
        file.write("a", TENSORS["a"])
    assert list(tmp_path.iterdir()) == []
