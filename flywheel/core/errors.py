"""Errors that a user can fix, and pictures that cannot be used."""

from __future__ import annotations


class UsageError(Exception):
    """An error that the user can fix: one clear sentence, printed without a traceback; exit code 2.

    >>> import flywheel as fw
    >>> try:
    ...     fw.load_policy("nowhere.toml")
    ... except fw.UsageError as error:
    ...     print("nowhere.toml" in str(error))
    True
    """


def first_line(error: BaseException) -> str:
    """The first line of what an error says that is not blank; its kind if it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class BadImage(ValueError):
    """The bytes are not a usable image; the message names the fault (zero bytes, not an image, too large, damaged)."""
