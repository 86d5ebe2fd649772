"""Model weights that no package contains: fetched once, checked by a pinned SHA-256, kept in a folder of this machine.

`weights.toml` beside this file lists them. Environment: FLYWHEEL_WEIGHTS is the folder (default:
~/.cache/flywheel/weights); FLYWHEEL_WEIGHTS_MIRROR is an address that holds the files under their own names and is
asked in place of all others; HF_ENDPOINT is asked in place of huggingface.co; with HF_HUB_OFFLINE=1 no run asks.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import IO, TYPE_CHECKING

from flywheel.core.config import read_toml
from flywheel.core.errors import UsageError
from flywheel.core.files import file_digest
from flywheel.core.lock import locked

if TYPE_CHECKING:
    import httpx

PREFIX = "weights:"  # of a name in a policy or preset
PATIENCE = 1.5  # seconds in which an address must answer a run, or it counts as not reachable
_HUB = "https://huggingface.co"
_CONNECT, _READ = 10.0, 60.0  # seconds without an answer at which a download gives up

Progress = Callable[[int, int, str], None]


class Unreachable(UsageError):
    """The weights are not on this machine, and their address does not answer."""


@dataclass(frozen=True)
class Weights:
    """One file of weights: where it comes from, and the SHA-256 and size that it must have."""

    name: str
    about: str
    licence: str
    bytes: int
    sha256: str
    address: str

    @property
    def path(self) -> Path:
        """Where the file is kept, in a folder named by its hash."""
        return folder() / self.sha256[:16] / self.address.rpartition("/")[2]

    @property
    def present(self) -> bool:
        """Whether the whole file is here; its hash was checked when it was fetched, and `verify` checks it again."""
        return self.path.is_file() and self.path.stat().st_size == self.bytes

    @property
    def source(self) -> str:
        """Address that is asked for the file: the mirror's, if one is set."""
        if mirror := os.environ.get("FLYWHEEL_WEIGHTS_MIRROR"):
            return f"{mirror.rstrip('/')}/{self.path.name}"
        if self.address.startswith(f"{_HUB}/") and (endpoint := os.environ.get("HF_ENDPOINT")):
            return endpoint.rstrip("/") + self.address.removeprefix(_HUB)
        return self.address


@cache
def catalogue() -> dict[str, Weights]:
    """The weights of `weights.toml` by name."""
    return {name: Weights(name, **entry) for name, entry in read_toml(files("flywheel.core") / "weights.toml").items()}


def folder() -> Path:
    """Folder of fetched weights."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FLYWHEEL_WEIGHTS") or Path(base) / "flywheel" / "weights")


def named(name: str) -> Weights:
    """The weights of that name, with or without the prefix. Errors: `UsageError` for an unknown name."""
    known = catalogue()
    if (name := name.removeprefix(PREFIX)) not in known:
        raise UsageError(f"unknown weights {name!r}: choose from {', '.join(sorted(known))}")
    return known[name]


def local_path(value: str) -> Path:
    """Path of the file that an option names: as `weights:NAME`, or by its path.

    Nothing is fetched. Errors: `Unreachable` for weights that are not here, `UsageError` for an unknown name.
    """
    if not value.startswith(PREFIX):
        return Path(value)
    weights = named(value)
    if not weights.present:
        raise Unreachable(_advice(weights))
    return weights.path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file: the pinned one of fetched weights, which `fetch` has checked, else that of its bytes."""
    pinned = next((w.sha256 for w in catalogue().values() if w.path == path), None)
    return pinned or file_digest(path)


def obtain(values: Iterable[object], progress: Progress | None = None) -> dict[object, str]:
    """Fetch the weights among the values of options (`weights:NAME`) that are not here.

    Returns the reason for each that cannot be had. Addresses that do not answer cost `PATIENCE` together, once in a
    process. Errors: `UsageError` for an unknown name.
    """
    wanted = [v for v in dict.fromkeys(values) if isinstance(v, str) and v.startswith(PREFIX)]
    missing = {v: named(v) for v in wanted if not named(v).present}
    answering = _answering(tuple(w.source for w in missing.values())) if missing and not _offline() else frozenset()
    reasons: dict[object, str] = {}
    for value, weights in missing.items():
        try:
            if weights.source not in answering:
                raise Unreachable(_advice(weights))
            fetch(weights, progress)
        except UsageError as error:
            reasons[value] = str(error)
    return reasons


def fetch(weights: Weights, progress: Progress | None = None) -> Path:
    """Path of the file, downloaded if it is not here; an interrupted download is resumed.

    The file appears under its name only when its hash is right. Errors: `Unreachable` if the address does not answer;
    `UsageError` for a wrong file, of which nothing is kept.
    """
    path = weights.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(".lock")):  # another process may be fetching it
        if weights.present:
            return path
        part = path.with_name(f".{path.name}.part")
        seen = _download(weights, part, progress)
        if seen != weights.sha256:
            part.unlink()
            raise UsageError(
                f"{weights.source} is not {weights.name}: its SHA-256 is {seen}, not {weights.sha256}; nothing was kept"
                " of it. Check FLYWHEEL_WEIGHTS_MIRROR, HF_ENDPOINT and the proxy"
            )
        part.replace(path)
    return path


def intact(weights: Weights) -> bool:
    """Whether the file that is here has the pinned hash; reads it whole."""
    return weights.present and file_digest(weights.path) == weights.sha256


def _download(weights: Weights, part: Path, progress: Progress | None) -> str:
    """Complete the partial file; returns the SHA-256 of all its bytes."""
    import httpx

    done = part.stat().st_size if part.exists() else 0
    if done >= weights.bytes:  # the last run was killed before the renaming
        if (seen := file_digest(part)) == weights.sha256:
            return seen
        done = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    timeout = httpx.Timeout(_READ, connect=_CONNECT)
    try:
        with httpx.stream("GET", weights.source, headers=headers, follow_redirects=True, timeout=timeout) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink()  # there are fewer bytes than we have: start anew next time
            response.raise_for_status()
            with part.open("ab" if response.status_code == httpx.codes.PARTIAL_CONTENT else "wb") as out:
                _receive(response, out, weights, progress)
    except httpx.HTTPError as error:
        raise Unreachable(
            f"weights not reachable: {weights.name} ({type(error).__name__}: {error}); `flywheel weights pull` resumes"
        ) from error
    return file_digest(part)


def _receive(response: httpx.Response, out: IO[bytes], weights: Weights, progress: Progress | None) -> None:
    done = out.tell()
    for chunk in response.iter_raw():
        done += len(chunk)
        if done > weights.bytes:  # an endless answer must not fill the disk
            out.truncate(0)
            raise UsageError(f"{weights.source} is not {weights.name}: it is longer than {weights.bytes} bytes")
        out.write(chunk)
        if progress:
            progress(done >> 20, max(1, weights.bytes >> 20), f"MiB of {weights.name}")
    out.flush()
    os.fsync(out.fileno())


@cache
def _answering(addresses: tuple[str, ...]) -> frozenset[str]:
    """Those of the addresses that answer within `PATIENCE`; asked by threads, as a name's look-up has no time limit."""
    import httpx

    answered: list[str] = []

    def ask(address: str) -> None:
        with suppress(httpx.HTTPError):
            httpx.head(address, timeout=PATIENCE)
            answered.append(address)

    threads = [threading.Thread(target=ask, args=(a,), daemon=True) for a in addresses]
    for thread in threads:
        thread.start()
    end = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return frozenset(answered)


def _advice(weights: Weights) -> str:
    return f"weights not reachable: {weights.name}; `flywheel weights pull` fetches them where there is a network"


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
