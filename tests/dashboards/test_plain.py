"""Records as JSON values."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dashboards.plain import plain


@dataclass(frozen=True)
class Inner:
    share: float
    names: tuple[str, ...]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": Inner(0.5, ("x", "y"))}, {"a": {"share": 0.5, "names": ["x", "y"]}}),
        ([float("nan"), float("inf"), 1.0, 2, True, None], [None, None, 1.0, 2, True, None]),
        ({1: {"b", "a"}}, {"1": ["a", "b"]}),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
        (b"\x00\xff", "00ff"),
        (Path("a/b"), "a/b"),
        (Inner, str(Inner)),
    ],
)
def test_values_become_json(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)
