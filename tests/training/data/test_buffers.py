"""Memory of large tensors is used again, never while a tensor refers to it, and bounded."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import torch

from training.data.buffers import SMALL, Buffers


def test_memory_is_used_again_once_no_tensor_refers_to_it():
    buffers, shape = Buffers(), (2, SMALL // 4)
    first = buffers.empty(shape, dtype=torch.float32)
    address, part = first.data_ptr(), first.fill_(1.0)[1, 5:9].numpy()
    assert first.shape == shape and first.dtype == torch.float32 and first.is_contiguous()
    del first
    assert buffers.empty(shape, dtype=torch.float32).fill_(2.0).data_ptr() != address  # `part` is still there
    assert part.tolist() == [1.0] * 4
    del part
    gc.collect()
    addresses = {buffers.empty(shape, dtype=torch.float32).data_ptr() for _ in range(5)}
    assert len(addresses) == 1  # one of the two that are free by now
    assert buffers.empty((3,), dtype=torch.uint8).shape == (3,)


def test_what_is_kept_is_bounded():
    buffers = Buffers()
    tensors = [buffers.empty((SMALL,), dtype=torch.uint8) for _ in range(5)]
    addresses = {t.data_ptr() for t in tensors}
    del tensors
    large = buffers.empty((2 * SMALL,), dtype=torch.uint8)
    assert (buffers._used, buffers._kept) == (2 * SMALL, 3 * SMALL)  # five in all, as were in use before
    rest = [buffers.empty((SMALL,), dtype=torch.uint8) for _ in range(4)]
    assert len({t.data_ptr() for t in rest} & addresses) >= 3
    assert (buffers._used, buffers._kept) == (6 * SMALL, 0) and not buffers._free[2 * SMALL] and len(large)


def test_stacking_is_that_of_torch_and_threads_share_no_memory():
    buffers = Buffers()
    rows = [torch.randint(0, 255, (SMALL,), dtype=torch.uint8) for _ in range(3)]
    assert torch.equal(buffers.stack(rows), torch.stack(rows))
    assert torch.equal(buffers.stack([rows[0][:4]]), rows[0][None, :4])
    empty = torch.zeros(0, 3, 2, 2)
    assert buffers.stack([empty, empty]).shape == (2, 0, 3, 2, 2)

    def fill(number: int) -> bool:
        tensor = buffers.empty((SMALL,), dtype=torch.uint8).fill_(number)
        return bool((tensor == number).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(fill, range(100)))
