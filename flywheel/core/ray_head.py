"""Does the head of a named Ray cluster answer? Ray ends a program whose head is gone, in words of its own."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flywheel.core.errors import UsageError

ASK_SECONDS = 5.0
_TRIES = 4
_GONE_SECONDS = 40.0  # Ray ends this process after 60: before that, and after whoever waits for a task has seen it


def require(address: str) -> None:
    """Check that the head at `host:port` answers, in several tries. Errors: `UsageError`."""
    for tries_left in reversed(range(_TRIES)):
        error = _failure(address)
        if error is None:
            return
        if not tries_left:
            raise UsageError(_sentence(address, error)) from error
        time.sleep(ASK_SECONDS)


@contextmanager
def watched(address: str) -> Iterator[None]:
    """End this process and its children, with one sentence and exit code 2, if the head goes away inside the block.

    Some calls of Ray, such as the one that connects, return only when Ray ends the process: no exception can leave
    them. An address without a port, such as "auto", is not watched.
    """
    ended = threading.Event()
    if address.rpartition(":")[2].isdigit():
        threading.Thread(target=_watch, args=(address, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch(address: str, ended: threading.Event) -> None:
    answered = time.monotonic()
    while not ended.wait(ASK_SECONDS):
        error = _failure(address)
        if error is None:
            answered = time.monotonic()
        elif time.monotonic() - answered > _GONE_SECONDS and not ended.is_set():
            _end(_sentence(address, error))


def _end(sentence: str) -> None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
    with suppress(OSError):
        os.write(2, f"\nerror: {sentence}\n".encode())
    os._exit(2)


def _failure(address: str) -> OSError | None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.removeprefix("ray://").strip("[]"), int(port)), timeout=ASK_SECONDS).close()
    except OSError as error:
        return error
    return None


def _sentence(address: str, error: OSError) -> str:
    return f"Ray was lost: its head at {address} does not answer ({error}): run again, finished work is kept"
