"""The plan of a round: shares follow the cases, and promoted rounds' remedies are kept."""

from __future__ import annotations

from flywheel.presets import load_preset
from flywheel.rounds.plan import make_plan
from tests.flywheel.cases.builders import detected, signal
from tests.flywheel.plans import entry, pins, round_plan


def test_plan_shares_follow_the_cases_and_name_their_reason():
    preset = load_preset("demo")
    signals = [signal(f"p{i}", "count", False) for i in range(10)] + [signal(f"q{i}", "text", False) for i in range(30)]
    signals += [signal("x", "rare", False)]
    cases = list(detected(signals, track="pretraining").values())
    plan = make_plan(cases, pins("checkpoints/a"), round_=2, preset=preset)
    shares = {m.slice: m.share for m in plan.mix}
    assert plan.targets == ("text", "count") and "rare" not in shares
    assert abs(sum(shares.values()) - 1) < 1e-9
    assert abs(shares["text"] / shares["count"] - 3) < 1e-3
    assert shares["base"] == 1 - preset.plan.remedy_share
    assert "30 routed to pretraining" in plan.mix[1].reason


def test_plan_keeps_what_promoted_rounds_repaired():
    preset = load_preset("demo")
    signals = [signal(f"p{i}", "count", False) for i in range(10)]
    cases = list(detected(signals, track="pretraining").values())
    second = round_plan(2, entry("base", 0.4), entry("text", 0.6, samples=9))
    third = make_plan(cases, pins("a"), [round_plan(1), second], round_=3, preset=preset)
    base, kept, count = third.mix
    assert (kept.slice, kept.round, kept.share) == ("text", 2, preset.plan.kept_share)
    assert abs(count.share - preset.plan.remedy_share * (1 - preset.plan.kept_share)) < 1e-6
    assert abs(base.share + kept.share + count.share - 1) < 1e-6
    fourth = make_plan([], pins("b"), [second, third], round_=4, preset=preset)
    shares = {(m.slice, m.round): m.share for m in fourth.mix}
    assert abs(shares["text", 2] / shares["count", 3] - 0.6 / count.share) < 1e-3  # what was kept is not kept twice
    assert abs(shares["base", None] - (1 - preset.plan.kept_share)) < 1e-6


def test_plan_of_the_first_round_targets_nothing_and_human_cases_wait():
    preset = load_preset("demo")
    cases = list(detected([signal(f"p{i}", "count", False) for i in range(9)], track="human").values())
    assert make_plan(cases, pins(), round_=1, preset=preset).targets == ()
    later = make_plan(cases, pins("a"), round_=2, preset=preset)
    assert later.targets == () and later.waiting == {"human": 9}
