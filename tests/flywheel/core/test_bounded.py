"""A child that takes too long, too much memory or too much processor time ends, and says so."""

from __future__ import annotations

import os
import threading
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest

from flywheel.core.bounded import TooMuch, bounded
from flywheel.core.errors import UsageError
from tests.processes import running


def run(function: Any, *arguments: Any, seconds: float = 20.0) -> Any:
    limited = bounded(function, seconds=seconds, memory=300 << 20, answer=1 << 20, processors=1, preload=())
    return limited(*arguments)


def wait(place: str) -> None:
    Path(place).write_text(str(os.getpid()))
    time.sleep(600)


def spin() -> None:
    while True:
        pass


def fill() -> int:
    return len(b"x" * (2 << 30))


def crash() -> None:
    os.abort()


def refuse() -> None:
    raise UsageError("no")


def fail() -> None:
    raise ZeroDivisionError("division")


def test_an_answer_comes_back(tmp_path: Path):
    assert run(divmod, 7, 2) == (3, 1)
    with pytest.raises(UsageError, match="^no$"):
        run(refuse)
    with pytest.raises(UsageError, match="ZeroDivisionError: division"):
        run(fail)


def test_a_child_that_takes_too_long_is_killed(tmp_path: Path):
    began = time.monotonic()
    with pytest.raises(TooMuch, match="longer than 1 s"):
        run(wait, str(tmp_path / "pid"), seconds=1.0)
    pid = int((tmp_path / "pid").read_text())
    assert time.monotonic() - began < 30 and not running([pid])
    with pytest.raises(TooMuch):
        run(spin, seconds=1.0)


@pytest.mark.parametrize("greedy", [fill, crash])
def test_a_child_that_needs_too_much_memory_ends_alone(greedy: Any):
    before = psutil.Process().memory_info().rss
    with pytest.raises(TooMuch, match="more than 300 MiB of memory"):
        run(greedy)
    assert psutil.Process().memory_info().rss - before < 200 << 20


def test_the_process_that_children_are_forked_from_may_be_killed_before_one_starts_or_as_it_does():
    run(os.getpid)
    for busy in (False, True):
        server = psutil.Process(forkserver._forkserver._forkserver_pid)
        if busy:
            server.suspend()  # as when it loads
        killing = threading.Timer(0.3 * busy, server.kill)
        killing.start()
        assert run(os.getpid) != os.getpid()
        killing.join()
        run(os.getpid)
        assert forkserver._forkserver._forkserver_pid != server.pid


def test_a_long_answer_is_refused():
    with pytest.raises(TooMuch, match="the answer has more than 1 MiB"):
        run(bytes, 2 << 20)
