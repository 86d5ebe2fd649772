"""The plan of a round: shares follow the cases, and promoted rounds' remedies are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flywheel.core.records import RoundPlan, Submission
from flywheel.presets import Distil, Enhancer, Preset, Rewards, load_preset
from flywheel.rounds.plan import Known, make_plan
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


def test_a_given_checkpoint_is_rehearsed_in_what_neither_this_round_nor_an_earlier_one_teaches():
    preset = load_preset("demo")
    cases = list(detected([signal(f"p{i}", "count", False) for i in range(10)], track="pretraining").values())
    known = Known(taught=("color", "count", "object", "text"))
    given = round_plan(1, submitted=Submission(checkpoint="checkpoints/a", source="a folder", by="me", why="a test"))
    own = make_plan(cases, pins("a"), [round_plan(1)], round_=2, preset=preset, known=known)
    assert [m.slice for m in own.mix] == ["base", "count"], "the pool has what an own first round was trained on"
    first = make_plan(cases, pins("a"), [given], round_=2, preset=preset, known=known)
    assert [m.slice for m in first.mix] == ["base", "color", "object", "text", "count"]
    assert [m.slice for m in first.aimed] == ["count"] == [*first.targets]
    shares = {m.slice: m.share for m in first.mix}
    assert shares["color"] == shares["text"] and abs(sum(shares.values()) - 1) < 1e-5
    assert abs(3 * shares["text"] - preset.plan.kept_share) < 1e-5
    often = {m.slice: (m.samples or 0) / m.share for m in first.requests}
    assert often["text"] == pytest.approx(often["count"], rel=0.02)
    assert first.remedy("pretraining", "data").samples == sum(m.samples or 0 for m in first.requests)
    nothing_kept = replace(preset, plan=replace(preset.plan, kept_share=0.0))
    without = make_plan(cases, pins("a"), [given], round_=2, preset=nothing_kept, known=known)
    assert [m.slice for m in without.mix] == ["base", "count"], "no sample is made that has no share"
    promoted = round_plan(2, entry("base", 0.4), entry("text", 0.6, samples=9))
    second = make_plan(cases, pins("b"), [given, promoted], round_=3, preset=preset, known=known)
    assert [m.slice for m in second.mix] == ["base", "text", "color", "object", "count"] and second.mix[1].round == 2
    assert second.mix[1].share == second.mix[2].share == pytest.approx(preset.plan.kept_share / 3, abs=1e-6)


def test_plan_of_the_first_round_targets_nothing_and_human_cases_wait():
    preset = load_preset("demo")
    cases = list(detected([signal(f"p{i}", "count", False) for i in range(9)], track="human").values())
    assert make_plan(cases, pins(), round_=1, preset=preset).targets == ()
    later = make_plan(cases, pins("a"), round_=2, preset=preset)
    assert later.targets == () and later.waiting == {"human": 9}


def served(preset: Preset, track: str, known: Known = Known(judged={"count"}), **changes: object) -> RoundPlan:
    """The plan of a round with ten open cases of one capability on one track."""
    cases = detected([signal(f"p{i}", "count", False) for i in range(10)], track=track)
    return make_plan(list(cases.values()), pins("a", **changes), round_=2, preset=preset, known=known)


TRAINING = replace(load_preset("demo"), rewards=Rewards(updates=5, prompts=7), enhancer=Enhancer(backend="a/model"))


def test_a_cases_track_decides_its_remedy():
    data, rl, better = (served(TRAINING, t) for t in ("pretraining", "rl", "prompt_enhancement"))
    assert [m.slice for m in data.mix] == ["base", "count"] and data.steps == TRAINING.training.round_steps
    assert data.remedy("pretraining", "data").samples == TRAINING.plan.samples
    assert not data.updates("rl", "grpo") and "no open case" in data.remedy("rl", "grpo").reason
    assert (rl.mix, rl.steps, rl.remedy("rl", "grpo").prompts, rl.updates("rl", "grpo")) == ((), 0, 7, 5)
    assert "data phase is empty" in rl.remedy("pretraining", "data").reason
    assert better.steps == 0 and better.updates("prompt_enhancement", "sft") == TRAINING.enhancer.sft_steps
    assert better.updates("prompt_enhancement", "grpo") == TRAINING.enhancer.grpo_steps
    for plan in (data, rl, better):
        assert plan.targets == ("count",) and len(plan.cases) == 10 and plan.waiting == {}
        assert all(r.reason for r in plan.remedies) and sum(bool(r.case_ids) for r in plan.remedies) in (1, 2)


def test_a_remedy_that_is_not_available_says_why_and_its_cases_wait():
    quick = load_preset("quick")
    rules = served(replace(quick, enhancer=Enhancer(sft_steps=9)), "prompt_enhancement")
    assert rules.waiting == {"prompt_enhancement": 10} and rules.targets == ()
    assert "not available: no enhancer model" in rules.remedy("prompt_enhancement", "sft").reason
    without = served(replace(quick, rewards=Rewards(updates=0)), "rl")
    assert "left out by the preset" in without.remedy("rl", "grpo").reason and without.waiting == {"rl": 10}
    unjudged = served(TRAINING, "rl", Known(judged={"typography"}))
    assert "not available: no prompts" in unjudged.remedy("rl", "grpo").reason and unjudged.waiting == {"rl": 10}
    assert "left out" in served(replace(quick, distil=Distil(updates=0)), "rl").remedy(None, "distil").reason
    assert served(replace(quick, distil=Distil(updates=3)), "rl").updates(None, "distil") == 3


def test_new_data_is_trained_on_even_if_only_rl_has_cases():
    plan = served(TRAINING, "rl", Known(judged={"count"}, unseen=True))
    assert plan.steps == TRAINING.training.round_steps and [m.slice for m in plan.mix] == ["base"]
    assert plan.updates("rl", "grpo") == 5 and plan.requests == ()


def test_scarcity_decides_the_quota():
    cases = detected([signal(f"{c}{i}", c, False) for c in ("count", "text") for i in range(10)], track="pretraining")
    sparse = {i: 0.0 if c.capability == "text" else 24.0 for i, c in cases.items()}
    plan = make_plan(list(cases.values()), pins("a"), round_=2, preset=load_preset("demo"), known=Known(density=sparse))
    text, count = plan.requests
    assert (text.slice, count.slice) == ("text", "count")
    assert text.samples == pytest.approx(4 * count.samples, abs=4) and text.share == pytest.approx(
        4 * count.share, 1e-3
    )
    assert "density is at percentile 24" in count.reason


def test_one_rl_run_serves_all_capabilities_of_the_track_if_they_have_enough_cases_together():
    cases = detected([signal(f"{c}{i}", c, False) for c in ("count", "text", "color") for i in range(2)], track="rl")
    known = Known(judged={"count", "text", "color"})
    plan = make_plan(list(cases.values()), pins("a"), round_=2, preset=TRAINING, known=known)
    assert plan.targets == ("color", "count", "text") and plan.remedy("rl", "grpo").cases == 6
    few = make_plan(list(cases.values())[:2], pins("a"), round_=2, preset=TRAINING, known=known)
    assert few.targets == () and "fewer than 4" in few.remedy("rl", "grpo").reason and few.waiting == {"rl": 2}
