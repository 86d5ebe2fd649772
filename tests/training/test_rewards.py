"""Requests as JSON, and numbers; the service itself is in `tests/flywheel/remedies/test_reward_service.py`."""

from __future__ import annotations

import json
import math

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.scorer import Item
from training.rewards import Request, RewardsLost, as_number, decode, encode

REQUEST = Request(Item(b"\x00\xffpicture", "a cat", "ti2i", (b"one", b"other")), ({"verifier": "color"},))


def test_a_request_comes_back_from_json():
    back = decode(json.loads(json.dumps(encode(REQUEST))))
    assert back == REQUEST and back.item.references == (b"one", b"other")


@pytest.mark.parametrize("missing", ["image", "references", "caption", "task", "checks"])
def test_a_request_without_a_part_is_refused(missing: str):
    values = encode(REQUEST)
    del values[missing]
    with pytest.raises(KeyError, match=missing):
        decode(values)


def test_a_picture_that_is_not_base64_is_refused():
    with pytest.raises(ValueError, match="ASCII"):
        decode(encode(REQUEST) | {"image": "§"})


def test_what_is_no_number_is_nan():
    assert as_number(0.5) == 0.5 and as_number(0.0) == 0
    assert all(math.isnan(as_number(v)) for v in (None, math.inf, -math.inf, math.nan))


def test_lost_rewards_are_an_error_that_the_user_can_fix():
    assert issubclass(RewardsLost, UsageError)
