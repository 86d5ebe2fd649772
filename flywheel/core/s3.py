"""S3's client with a bound on all its retries: an S3 that stays away costs a command half a minute, not minutes.

Each library repeats failed requests, one on top of the other: botocore 8 times, s3fs each of those 5 times, and a
command that ends makes further requests. Here all requests of a process share what is left of `PATIENCE`: once there
was nothing but errors for so long, no request is repeated until one is answered.
"""

from __future__ import annotations

import time
from typing import Any

from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError
from s3fs import S3FileSystem

PATIENCE = 30.0  # seconds
CONNECT_SECONDS, READ_SECONDS = 10, 30
_FORGET = 120.0  # seconds; longer than the longest wait between two attempts of a request
_EVENT = "needs-retry.s3"  # emitted for every attempt of every request, also for one that was answered
_FAILED = 500  # the first status that says that the server, not the request, is at fault


class S3Away(OSError):
    """S3 gave nothing but errors for longer than `PATIENCE`."""


class _Silence:
    """Since when the requests of this process have had nothing but errors; one that worked ends it."""

    def __init__(self) -> None:
        self._since = self._last = 0.0
        self._broken = False

    def answered(self) -> None:
        self._broken = False

    def failed(self, took: float) -> None:
        """An attempt failed after so many seconds. Errors that no request has met for a while are forgotten."""
        now = time.monotonic()
        if not self._broken or now - self._last > _FORGET:
            self._since = now - took
        self._broken, self._last = True, now

    @property
    def seconds(self) -> float:
        """How long nothing but errors came; 0 if the last attempt worked."""
        now = time.monotonic()
        return now - self._since if self._broken and now - self._last <= _FORGET else 0.0


_silence = _Silence()


def away() -> bool:
    """Whether S3 has been away for so long that requests are not repeated any more."""
    return _silence.seconds > PATIENCE


class PatientS3(S3FileSystem):
    """fsspec's file system for S3, within the patience of this process. Errors: `S3Away`, besides those of s3fs."""

    async def set_session(self, refresh: bool = False, kwargs: Any = {}) -> Any:  # noqa: B006
        """As in s3fs."""
        client = await super().set_session(refresh, kwargs)
        client.meta.events.register_first(_EVENT, _attempted, unique_id="flywheel-patience")
        return client


def _attempted(response: Any = None, caught_exception: Any = None, **_: Any) -> None:
    """Note how an attempt ended, before botocore decides whether it is repeated."""
    if caught_exception is None and (response is None or response[0].status_code < _FAILED):
        _silence.answered()
        return
    hung = {ReadTimeoutError: READ_SECONDS, ConnectTimeoutError: CONNECT_SECONDS}
    _silence.failed(next((s for kind, s in hung.items() if isinstance(caught_exception, kind)), 0.0))
    if away():
        what = caught_exception or f"status {response[0].status_code}"
        raise S3Away(f"nothing but errors for {_silence.seconds:.0f} s, at last: {what}") from caught_exception
