"""Requests that fail are repeated, and files are not to blame for their server."""

from __future__ import annotations

import pytest

from curation.sources.asking import asked, reason
from flywheel.core.errors import UsageError


def test_servers_that_fail_are_asked_again_and_files_are_not_to_blame() -> None:
    calls: list[int] = []

    def flaky() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionResetError("reset")
        return "answer"

    assert asked(flaky) == "answer" and len(calls) == 3

    def forbidden() -> str:
        error = RuntimeError("no")
        error.status = 403  # type: ignore[attr-defined]
        raise error

    with pytest.raises(PermissionError, match="refuses access"):
        asked(forbidden)

    def down() -> str:
        raise ConnectionResetError("reset by peer")

    with pytest.raises(UsageError, match="run again, finished work is kept .*reset by peer"):
        asked(down)


def test_credentials_that_are_missing_are_asked_for() -> None:
    """To run again would not help."""

    class NoCredentialsError(Exception):
        """As botocore's."""

    def refused() -> str:
        raise NoCredentialsError("Unable to locate credentials")

    def reset() -> str:
        raise ConnectionResetError("s3://bucket/credentials/a.jpg: reset by peer")

    with pytest.raises(UsageError, match="wants credentials.*FSSPEC_S3_ANON"):
        asked(refused)
    with pytest.raises(UsageError, match="run again"):
        asked(reset)


def test_the_reason_is_what_happened_and_not_the_address() -> None:
    error = FileNotFoundError("https://host/a.tar")
    assert reason(error) == "nothing is there"
    error.__cause__ = OSError(-2, "Name or service not known")
    assert reason(error) == "Name or service not known"
