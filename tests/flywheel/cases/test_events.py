"""Cases: detection, folding, re-test, attribution, plan and enhancer, all pure."""

import json

import pyarrow as pa

from flywheel.cases.attribution import attribute
from flywheel.cases.events import case_id, detect, event, fold, retest
from flywheel.presets import Attribution
from flywheel.remedies.enhancer import enhance


def signal(prompt: str, capability: str, passed: bool | None, **changes: object) -> dict:
    row = {"round": 1, "arm": "candidate", "kind": "evaluation", "prompt_id": prompt, "prompt": prompt}
    row |= {"capability": capability, "verifier": capability, "passed": passed, "score": 0.0, "threshold": 1.0}
    row |= {"evidence": "{}", "image": "i.png", "signal_id": "s"}
    return row | changes


def test_two_failed_checks_of_one_capability_are_one_case_and_unapplied_checks_none():
    signals = [
        signal("a", "count", False),
        signal("a", "count", False),
        signal("a", "color", True),
        signal("b", "color", None),
    ]
    events = detect(signals, {}, 1)
    assert [e["case_id"] for e in events] == [case_id("a", "count")]
    assert len(json.loads(events[0]["evidence"])["signals"]) == 2


def test_control_failures_and_known_cases_open_nothing():
    known = fold(detect([signal("a", "count", False)], {}, 1))
    assert detect([signal("a", "count", False)], known, 1) == []
    assert detect([signal("b", "count", False, arm="control")], {}, 1) == []


def test_a_case_lives_through_closing_and_reopening():
    events = detect([signal("a", "count", False)], {}, 1)
    case = fold(events)[case_id("a", "count")]
    events.append(event(case, 1, "routed", {}, track="rl"))
    events += retest({("a", "count"): True}, fold(events), 2)
    assert not fold(events)[case.case_id].is_open
    assert retest({("a", "count"): True}, fold(events), 3) == []  # still closed: nothing to say
    events += retest({("a", "count"): False}, fold(events), 3)
    reopened = fold(events)[case.case_id]
    assert reopened.is_open and reopened.track == "rl" and reopened.round == 1


def test_event_ids_are_unique_per_case_round_and_kind():
    case = fold(detect([signal("a", "count", False)], {}, 1))[case_id("a", "count")]
    ids = {event(case, r, k, {})["event_id"] for r in (1, 2) for k in ("routed", "remedied")}
    assert len(ids) == 4


def test_attribution_order():
    settings = Attribution(seeds=3, sparse_percentile=25)

    def track(enhanced: bool | None, seeds: int, density: float) -> str:
        row = {
            "enhanced": "better",
            "enhanced_seeds": 1,
            "enhanced_passed": enhanced if enhanced is None else int(enhanced),
        }
        row |= {"seeds": 3, "seeds_passed": seeds, "density": density}
        return attribute(pa.Table.from_pylist([row]), settings)[0][0]

    assert track(True, 3, 0) == "prompt_enhancement"
    assert track(False, 1, 0) == "rl"
    assert track(None, 0, 10) == "pretraining"
    assert track(False, 0, 80) == "human"


def test_enhancer_rewrites_requests_and_leaves_good_prompts_and_quotes_alone():
    assert enhance("please draw me 2 red  circles") == "two red circles"
    assert enhance("the word “2 CATS” in red") == 'the word "2 CATS" in red'
    assert enhance("two red circles") is None
