"""Errors that a user can fix."""

from __future__ import annotations


class UsageError(Exception):
    """An error that the user can fix: one clear sentence, printed without a traceback; exit code 2."""
