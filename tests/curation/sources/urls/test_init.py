"""Settings of a fetch."""

from __future__ import annotations

import pytest

from curation.sources.urls import Fetching
from flywheel.core.errors import UsageError


def test_settings_that_cannot_work_are_refused() -> None:
    assert Fetching(agent="My-Bot/2.0 (+https://my.org)").token == "my-bot"
    for wrong in (
        {"per_host": 0},
        {"delay": -1},
        {"agent": ""},
        {"agent": "a\r\nX: y"},
        {"timeout": 0},
        {"part_rows": 0},
    ):
        with pytest.raises(UsageError, match=f"fetch.{next(iter(wrong))} is"):
            Fetching(**wrong)
