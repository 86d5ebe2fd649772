"""Requests to file systems that are elsewhere: repeated where that helps, and what became of them in a few words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flywheel.core.errors import UsageError, first_line

_ATTEMPTS = 4
_CREDENTIALS = (
    "give them as its own tools take them, for S3 as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or in a profile; for a"
    " public bucket set FSSPEC_S3_ANON=true"
)

T = TypeVar("T")


def reason(error: BaseException) -> str:
    """An error of a file system in a few words; HTTP's names only the address, and what happened in its cause."""
    told = error.__cause__ if "://" in str(error) and isinstance(error.__cause__, Exception) else error
    if isinstance(told, FileNotFoundError) and not told.strerror and told.__cause__ is None:
        return "nothing is there"  # the message is the address
    return str(getattr(told, "strerror", None) or first_line(told))[:300]


def asked(request: Callable[[], T]) -> T:
    """The answer of a remote file system; a request that fails is repeated unless the file is missing or forbidden.

    Errors: `OSError` for the file; `UsageError` where the server is to blame.
    """
    from tenacity import Retrying, retry_if_not_exception_type, stop_after_attempt, wait_exponential_jitter

    final = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, ImportError, UsageError)
    retrying = Retrying(
        retry=retry_if_not_exception_type(final),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential_jitter(initial=0.2, max=5),
        reraise=True,
    )
    try:
        return retrying(_translated, request)
    except final:
        raise
    except Exception as error:  # each file system raises errors of its own
        if "Credential" in type(error).__name__:  # by its kind: what it says may name a folder of credentials
            raise UsageError(f"the source's server wants credentials: {_CREDENTIALS} ({reason(error)})") from error
        raise UsageError(
            f"the source's server does not answer as it should: run again, finished work is kept ({reason(error)})"
        ) from error


def _translated(request: Callable[[], T]) -> T:
    """Call; refusals by status become `OSError`."""
    try:
        return request()
    except Exception as error:
        status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise PermissionError(f"the server refuses access ({status})") from error
        if status in (404, 410):
            raise FileNotFoundError(f"not found ({status})") from error
        raise
