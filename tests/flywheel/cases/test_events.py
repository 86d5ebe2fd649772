"""Cases: detection, folding, re-test, attribution, plan and enhancer, all pure."""

import json

import pyarrow as pa

from flywheel.cases.attribution import attribute
from flywheel.cases.events import case_id, detect, event, fold, retest
from flywheel.presets import Attribution, load_preset
from flywheel.remedies.enhancer import enhance
from flywheel.rounds.plan import make_plan


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


def test_plan_shares_follow_the_cases_and_name_their_reason():
    preset = load_preset("demo")
    signals = [signal(f"p{i}", "count", False) for i in range(10)] + [signal(f"q{i}", "text", False) for i in range(30)]
    signals += [signal("x", "rare", False)]
    cases = [c.__class__(**{**vars(c), "track": "pretraining"}) for c in fold(detect(signals, {}, 1)).values()]
    plan = make_plan(cases, {"incumbent": "checkpoints/a"}, round_=2, preset=preset)
    shares = {m["slice"]: m["share"] for m in plan["mix"]}
    assert plan["targets"] == ["text", "count"] and "rare" not in shares
    assert abs(sum(shares.values()) - 1) < 1e-9
    assert abs(shares["text"] / shares["count"] - 3) < 1e-3
    assert shares["base"] == 1 - preset.plan.remedy_share
    assert "30 routed to pretraining" in plan["mix"][1]["reason"]


def test_plan_keeps_what_promoted_rounds_repaired():
    preset = load_preset("demo")
    signals = [signal(f"p{i}", "count", False) for i in range(10)]
    cases = [c.__class__(**{**vars(c), "track": "pretraining"}) for c in fold(detect(signals, {}, 1)).values()]
    second = {"round": 2, "mix": [{"slice": "base", "share": 0.4}, {"slice": "text", "share": 0.6, "samples": 9}]}
    third = make_plan(
        cases,
        {"incumbent": "a"},
        [{"round": 1, "mix": [{"slice": "base", "share": 1.0}]}, second],
        round_=3,
        preset=preset,
    )
    base, kept, count = third["mix"]
    assert (kept["slice"], kept["round"], kept["share"]) == ("text", 2, preset.plan.kept_share)
    assert abs(count["share"] - preset.plan.remedy_share * (1 - preset.plan.kept_share)) < 1e-6
    assert abs(base["share"] + kept["share"] + count["share"] - 1) < 1e-6
    fourth = make_plan([], {"incumbent": "b"}, [second, third], round_=4, preset=preset)
    shares = {(m["slice"], m.get("round")): m["share"] for m in fourth["mix"]}
    assert abs(shares["text", 2] / shares["count", 3] - 0.6 / count["share"]) < 1e-3  # what was kept is not kept twice
    assert abs(shares["base", None] - (1 - preset.plan.kept_share)) < 1e-6


def test_plan_of_the_first_round_targets_nothing_and_human_cases_wait():
    preset = load_preset("demo")
    cases = [
        c.__class__(**{**vars(c), "track": "human"})
        for c in fold(detect([signal(f"p{i}", "count", False) for i in range(9)], {}, 1)).values()
    ]
    assert make_plan(cases, {"incumbent": None}, round_=1, preset=preset)["targets"] == []
    later = make_plan(cases, {"incumbent": "a"}, round_=2, preset=preset)
    assert later["targets"] == [] and later["waiting"] == {"human": 9}


def test_enhancer_rewrites_requests_and_leaves_good_prompts_and_quotes_alone():
    assert enhance("please draw me 2 red  circles") == "two red circles"
    assert enhance("the word “2 CATS” in red") == 'the word "2 CATS" in red'
    assert enhance("two red circles") is None
