"""Errors that a user can fix."""

from __future__ import annotations


class UsageError(Exception):
    """The user can fix this: one clear sentence, printed without a traceback, exit code 2."""
