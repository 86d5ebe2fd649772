"""From signals to shares of pictures that pass, and failure rates."""

import pytest

from flywheel.signals.results import failure_rates, passes, results


def signal(prompt: str, image: str, passed: bool | None, **changes: object) -> dict:
    row = {"kind": "evaluation", "round": 2, "arm": "candidate", "prompt_id": prompt, "capability": "count"}
    return row | {"image": image, "passed": passed} | changes


def test_a_picture_passes_if_all_checks_that_apply_pass():
    signals = [
        signal("a", "a.png", True),
        signal("a", "a.png", False),  # another check of the same picture
        signal("a", "seed-1/a.png", True),
        signal("a", "seed-1/a.png", None),  # not applied
        signal("b", "b.png", None),
        signal("a", "a.png", False, arm="control"),
        signal("a", "a.png", False, round=1),
        signal("a", "a.png", False, kind="feedback"),
    ]
    assert results(signals, 2, "candidate") == {("a", "count"): 0.5}


def test_a_prompt_passes_by_more_than_half_and_weighs_as_much_as_any_other():
    assert [passes(share) for share in (0.0, 0.5, 0.51, 1.0)] == [False, False, True, True]
    shares = {("a", "count"): 0.5, ("b", "count"): 1.0, ("a", "color"): 0.0}
    assert failure_rates(shares) == {"color": 1.0, "count": pytest.approx(0.25)}
