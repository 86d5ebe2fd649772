"""Verifiers of shapes, colours, places and counts on drawn cards."""

from __future__ import annotations

import random

import numpy as np
import pytest

from flywheel.demo.cards import Single, draw_single
from tests.curation.verify.judged import judged, png


def test_checks_on_a_card_pass_and_fail_with_evidence():
    image = draw_single(Single("star", "green", "top", "white"), random.Random(0))
    outcomes = judged(
        image,
        {"verifier": "object", "capability": "object", "shape": "star"},
        {"verifier": "object", "capability": "object", "shape": "circle"},
        {"verifier": "color", "capability": "color", "shape": "star", "color": "green"},
        {"verifier": "color", "capability": "color", "color": "red"},
        {"verifier": "position", "capability": "position", "position": "top"},
        {"verifier": "position", "capability": "position", "position": "left"},
        {"verifier": "count", "capability": "count", "shape": "star", "count": 1},
        {"verifier": "count", "capability": "count", "shape": "star", "count": 3},
    )
    assert [o.passed for o in outcomes] == [True, False] * 4
    assert outcomes[3].evidence == {"expected": "red", "seen": "green"}
    assert outcomes[7].evidence["seen"] == 1 and outcomes[7].score == pytest.approx(1 / 3)
    assert all(o.threshold == 1.0 for o in outcomes)


def test_a_wrong_shape_still_gets_a_verdict_on_its_colour_and_place():
    image = draw_single(Single("circle", "green", "top", "white"), random.Random(0))
    outcomes = judged(
        image,
        {"verifier": "color", "capability": "color", "shape": "star", "color": "green"},
        {"verifier": "position", "capability": "position", "shape": "star", "position": "top"},
    )
    assert [o.passed for o in outcomes] == [True, True]


def test_nothing_to_see_fails_every_shape_check():
    outcomes = judged(
        png(np.full((64, 64, 3), 250)),
        {"verifier": "object", "capability": "object", "shape": "star"},
        {"verifier": "color", "capability": "color", "color": "red"},
        {"verifier": "position", "capability": "position", "position": "top"},
        {"verifier": "count", "capability": "count", "count": 2},
    )
    assert [o.passed for o in outcomes] == [False] * 4 and outcomes[3].score == 0.0
