"""Plans for tests: everything that a test does not name has a fixed value."""

from __future__ import annotations

from typing import Any

from flywheel.core.records import BASE, MixEntry, Pins, RoundPlan


def pins(incumbent: str | None = None, **changes: Any) -> Pins:
    """What a round pins."""
    named = {"name": "demo", "sha256": "0"}
    values = {"snapshot": "s", "policy": named, "preset": named, "checkpoint": None, "code": "0"}
    values |= {"suites": (), "seed": 0}
    return Pins(incumbent=incumbent, **values | changes)


def round_plan(number: int, *mix: MixEntry, incumbent: str | None = None, **changes: Any) -> RoundPlan:
    """The plan of a round; `mix` defaults to the base pool alone."""
    values = {"recipe": {"base": "tiny"}, "steps": 50, "targets": (), "cases": (), "cases_open": 0, "waiting": {}}
    return RoundPlan(**vars(pins(incumbent)) | values | changes, round=number, mix=mix or (entry(BASE, 1.0),))


def entry(slice_: str, share: float, **changes: Any) -> MixEntry:
    """A slice's share of the mix."""
    return MixEntry(slice=slice_, share=share, reason="a test", **changes)
