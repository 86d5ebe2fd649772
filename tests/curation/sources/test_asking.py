"""Requests that fail are repeated, and files are not to blame for their server."""

from __future__ import annotations

import pytest

from curation.sources.asking import asked
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
