"""Checkpoints that are written while training goes on; `test_distributed.py` has those of several processes."""

from __future__ import annotations

import errno
import os
import threading

import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException

from flywheel.core import hashes
from flywheel.core.errors import UsageError
from flywheel.core.files import file_digest
from training.checkpoint import Checkpoint, sweep
from training.distributed import World
from training.saving import Writer, copied, taken_by_first, write

STATE = {"model": {"a": torch.arange(3.0), "b": torch.ones(2, 2)}, "optimizer": {"step.a": torch.tensor(1.0)}}


def test_files_are_hashed_as_they_are_written(tmp_path):
    (tmp_path / hashes.MARKER).write_text("{}")
    path = write(tmp_path / "step-1", STATE, None, {"step": 1}).path
    for name in ("model.safetensors", "optimizer.safetensors"):
        entry = Checkpoint(path).config["files"][name]
        assert entry == {"bytes": (path / name).stat().st_size, "sha256": file_digest(path / name)}
        assert hashes.read(path).newest[name].sha256 == entry["sha256"]
    before = (path / "model.safetensors").read_bytes()
    write(path, {"model": {"a": torch.zeros(3)}}, None, {"step": 2})  # a whole one is kept
    assert (path / "model.safetensors").read_bytes() == before and Checkpoint(path).step == 1


def test_one_is_written_at_a_time_and_none_sees_later_steps(tmp_path):
    weights, go, begun = {"model": {"a": torch.zeros(1)}}, threading.Event(), []

    def take(step: int):
        kept = copied(weights)
        begun.append(step)

        def work() -> None:
            assert go.wait(60)
            write(tmp_path / f"step-{step}", kept, None, {"step": step})

        return work

    with Writer(World()) as writer:
        writer.start(lambda: take(1))
        weights["model"]["a"] += 5  # the next step, while the first is written
        assert not (tmp_path / "step-1").exists()
        second = threading.Thread(target=lambda: writer.start(lambda: take(2)))
        second.start()
        second.join(0.1)
        assert begun == [1] and second.is_alive()
        go.set()
        second.join()
    assert [Checkpoint(tmp_path / f"step-{n}").tensors("model")["a"].item() for n in (1, 2)] == [0, 5]


def fail(error: BaseException):
    def work() -> None:
        raise error

    return lambda: work


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "step-1")


def test_what_a_write_fails_with_is_one_sentence_at_the_next_or_at_the_end(caplog):
    sentence = (
        "a checkpoint was not written .*No space left.*: look for free space on its disk, then run again to resume"
    )
    with pytest.raises(UsageError, match=sentence), Writer(World()) as writer:
        writer.start(fail(FULL))
        writer.start(lambda: pytest.fail("a copy was taken"))
    with pytest.raises(UsageError, match=sentence), Writer(World()) as writer:
        writer.start(fail(FULL))
    together = CheckpointException("write", {1: (RuntimeError("unexpected pos\nat 1"), None)})  # PyTorch's, of rank 1
    with pytest.raises(UsageError, match=r"not written \(unexpected pos\)"), Writer(World()) as writer:
        writer.start(fail(together))
    with pytest.raises(KeyError), Writer(World()) as writer:  # a fault of ours stays what it is
        writer.start(fail(KeyError("x")))
    with pytest.raises(UsageError, match="diverged"), Writer(World()) as writer:
        writer.start(fail(FULL))
        raise UsageError("diverged")
    assert "a checkpoint was not written" in caplog.text


def test_whoever_interrupts_a_run_does_not_wait_for_its_checkpoint():
    go = threading.Event()
    with pytest.raises(KeyboardInterrupt), Writer(World()) as writer:
        writer.start(lambda: lambda: go.wait(60))
        raise KeyboardInterrupt
    assert writer._thread.is_alive()
    go.set()


def test_only_the_first_process_copies():
    taken = []
    taken_by_first(World(), lambda: lambda: taken.append(1))()
    assert taken == [1]


def test_a_run_waits_for_what_an_interrupted_one_of_its_process_still_writes(tmp_path):
    """Else it would remove the folder under its writer."""
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        folder = tmp_path / ".step-00000001.tmp"
        folder.mkdir()
        begun.set()
        go_on.wait()
        (folder / "late").write_text("weights")

    with pytest.raises(KeyboardInterrupt), Writer(World()) as writer:
        writer.start(lambda: work)
        assert begun.wait(20)
        threading.Timer(0.3, go_on.set).start()
        raise KeyboardInterrupt
    assert not go_on.is_set(), "whoever interrupts a run does not wait"
    sweep(tmp_path)
    assert go_on.is_set() and not list(tmp_path.iterdir())
