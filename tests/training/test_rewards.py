"""Requests as JSON, and numbers; the service itself is in `tests/flywheel/remedies/test_reward_service.py`."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from flywheel.core.errors import UsageError
from flywheel.core.scorer import Item
from training.rewards import Request, RewardsLost, as_number, decode, encode, numbers

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


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor([0.5])])
def test_one_number_of_any_kind_is_a_float(value: object):
    assert numbers([{"a": value}, {"a": None}], ["a"], 2)[0] == [0.5]
    assert type(numbers([{"a": value}], ["a"], 1)[0][0]) is float


@pytest.mark.parametrize("value", ["0.5", b"1", [0.5], 10**400, 1j, torch.tensor([1.0, 2.0])])
def test_what_is_not_one_number_names_its_reward(value: object):
    with pytest.raises(UsageError, match="reward 'a' gave .*give one number, or None"):
        numbers([{"a": value}], ["a"], 1)


def test_lost_rewards_are_an_error_that_the_user_can_fix():
    assert issubclass(RewardsLost, UsageError)
