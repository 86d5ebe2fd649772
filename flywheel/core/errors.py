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


class BadImage(ValueError):
    """The bytes are not a usable image; the message names the fault (zero bytes, not an image, too large, damaged)."""
