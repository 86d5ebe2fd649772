"""Policies: one number replaced, and written as a record."""

from __future__ import annotations

import json

import pytest

from curation.policy.policy import Policy
from curation.policy.reader import load_policy
from flywheel.core.errors import UsageError


def test_replace() -> None:
    policy = load_policy("qwen-image-2")
    changed = policy.replace("S4.aesthetic.min", 5.0)
    assert changed.sha256 != policy.sha256
    assert changed.replace("S4.aesthetic.min", 4.5).sha256 == policy.sha256
    for path, choices in (
        ("S9.aesthetic.min", "no stage 'S9', choose from S1, S2, S3, S4, S5, S6"),
        ("S4.taste.min", "S4 has no filter 'taste', choose from S4.resolution, .*S4.aesthetic"),
        ("S4.aesthetic.score", "S4.aesthetic has the bounds min, max"),
        ("S1.deduplication.min", "S1.deduplication has the bounds hamming, colour"),
        ("S1.broken_files.min", "S1.broken_files has the bounds none"),
        ("S4", "S4 has no filter ''"),
    ):
        with pytest.raises(UsageError, match=f"nothing to set at '{path}': {choices}"):
            policy.replace(path, 1)
    with pytest.raises(UsageError, match="'S1.resolution', which is a filter: name its number, S1.resolution.min, S1"):
        policy.replace("S1.resolution", 1)
    with pytest.raises(UsageError, match="hamming is not a whole number from 0 to 64"):
        policy.replace("S1.deduplication.hamming", 2.5)
    with pytest.raises(UsageError, match="is over max"):
        policy.replace("S1.entropy.min", 99)


@pytest.mark.parametrize("name", ["demo", "qwen-image-2"])
def test_a_policy_survives_its_record(name: str) -> None:
    policy = load_policy(name)
    again = Policy.from_record(json.loads(json.dumps(policy.record())))
    assert again == policy and again.sha256 == policy.sha256
