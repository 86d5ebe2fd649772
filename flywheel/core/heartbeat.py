"""Signs of life of the process that holds something: a small file that it renews, and that others only watch.

Clocks play no part: a watcher counts its own seconds without a change. Where holder and watcher run in one process
namespace of one machine, the process itself is looked up instead.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flywheel.core import hashes
from flywheel.core.errors import UsageError
from flywheel.core.files import discard, write_bytes
from flywheel.core.storage import failures, read_tagged, remote, replace

BEAT_SECONDS = 5.0
SILENT_SECONDS = 45.0  # without a beat, a holder counts as dead
_POLL_SECONDS = 1.0


@contextmanager
def beating(path: Path) -> Iterator[Callable[[], None]]:
    """Renew the file while the block runs; yields a check that this process is still the holder.

    The check raises `UsageError` once another process has written the file, or removed it: this one stood still for so
    long that it was taken for dead, and must record nothing more.
    """
    token, done = uuid.uuid4().hex, threading.Event()
    hashes.note(path, hashes.LIVING)
    _write(path, token, 0)

    def check() -> None:
        current = _read(path)
        if current is None or current.get("token") != token:
            raise UsageError(
                "another run took over the workspace while this one stood still: this run stops here, and what it has"
                " finished is kept"
            )

    def renew() -> None:
        beat = 0
        while not done.wait(BEAT_SECONDS):
            beat += 1
            with suppress(*failures()):  # the next beat will do
                if not _renew(path, token, beat):
                    return

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield check
    finally:
        done.set()
        thread.join()
        with suppress(*failures()):  # it falls silent then
            current = _read(path)
            if current is not None and current.get("token") == token:
                discard(path)


def is_beating(path: Path, *, silent: float | None = None) -> bool:
    """Is there a living holder? Answers at once on the holder's own machine, else after watching the file.

    Watching takes until the next beat; after `silent` seconds without one (`SILENT_SECONDS`) the holder counts as dead.
    """
    first = _read(path)
    if first is None:
        return False
    here = _here(first)
    return _changes(path, first, SILENT_SECONDS if silent is None else silent) if here is None else here


def glance(path: Path) -> tuple[bool | None, bytes]:
    """(Is there a living holder, its newest sign of life), at once; None: it is elsewhere, so watch the sign."""
    first = _read(path)
    if first is None:
        return False, b""
    return _here(first), json.dumps(first, sort_keys=True).encode()


def _here(first: Mapping[str, Any]) -> bool | None:
    """Whether the holder lives, if it is in this process namespace of this machine; else None."""
    here = _identity(os.getpid())
    if all(first.get(k) == here[k] != "" for k in ("boot", "namespace")):
        return _identity(int(first["pid"]))["ticks"] == first["ticks"] != ""
    return None


def _changes(path: Path, first: Mapping[str, Any], silent: float) -> bool:
    """Is the file written again within the time that a holder may be silent?"""
    began = time.monotonic()
    while time.monotonic() - began < silent:
        time.sleep(_POLL_SECONDS)
        current = _read(path)
        if current is None:
            return False  # released meanwhile
        if current != first:
            return True
    return False


def _write(path: Path, token: str, beat: int) -> None:
    write_bytes(path, _content(token, beat), recorded=False)


def _renew(path: Path, token: str, beat: int) -> bool:
    """Write the next beat; False if another process has taken the file. On S3 by compare-and-swap: a holder that stood
    still between reading and writing cannot overwrite the one that took over meanwhile.
    """
    if remote(path):
        try:
            data, tag = read_tagged(path)
        except FileNotFoundError:
            return False
        if (_parsed(data) or {}).get("token") != token:
            return False
        replace(path, _content(token, beat), tag)  # where it fails, the next beat says who holds it
        return True
    current = _read(path)
    if current is None or current.get("token") != token:
        return False
    _write(path, token, beat)
    return True


def _content(token: str, beat: int) -> bytes:
    return json.dumps(_identity(os.getpid()) | {"token": token, "beat": beat}).encode()


def _read(path: Path) -> dict[str, Any] | None:
    """What the file holds; None where there is none, or what is there is not a heartbeat."""
    try:  # from S3 in one request: the holder may write it between two
        data = read_tagged(path)[0] if remote(path) else path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        if remote(path):
            raise  # the storage does not answer: that says nothing of the holder
        return None
    return _parsed(data)


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and {"token", "pid", "ticks"} <= value.keys() else None


def _identity(pid: int) -> dict[str, str | int]:
    """Machine start, process namespace and start of a process; empty where the system does not tell, or it ended."""
    stat = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    alive = len(stat) > 19 and stat[0] not in ("Z", "X")
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    boot = _text(Path("/proc/sys/kernel/random/boot_id")).strip()
    return {"boot": boot, "namespace": namespace, "pid": pid, "ticks": stat[19] if alive else ""}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
