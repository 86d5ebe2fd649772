"""The rule of the RL remedy, and the prompts and recipe that it leaves."""

from __future__ import annotations

import json
import random
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.cases.events import Case
from flywheel.presets import Rewards
from flywheel.remedies import reward_policy
from flywheel.signals.suite import Prompt, load_suite
from tests.flywheel.remedies.cards import SUITE, near_evaluation

CHECKS = [("text", "typography"), ("count", "count"), ("identity", "identity"), ("alignment", "style")]
JUDGED = [Prompt(f"p{n}", f"t{n}", "t2i", (), ({"verifier": v, "capability": c},)) for n, (v, c) in enumerate(CHECKS)]


def rl(*capabilities: str) -> list[Case]:
    return [Case(f"{c}{n}", 1, c, "rl", f"p{n}", "t", "routed") for n, c in enumerate(capabilities)]


def test_weights_and_mix_follow_the_cases_and_say_why():
    cases = rl("typography", "typography", "typography", "count")
    failed = {c.case_id: ["text"] if c.capability == "typography" else ["count"] for c in cases}
    rule = reward_policy.adjust(cases, JUDGED, failed, settings=Rewards(prompts=100, floor=0.2))
    assert rule["weights"] == pytest.approx({"ocr": 0.65, "instruction": 0.25, "consistency": 0.05, "alignment": 0.05})
    assert rule["mix"] == {"count": 25, "identity": 5, "style": 5, "typography": 65}
    assert rule["categories"]["typography"]["ocr"] == pytest.approx(0.6)
    assert "typography: 3 of 4 open RL cases → 65 of 100 prompts" in rule["log"]


def test_a_reward_whose_rise_cost_another_capability_is_damped_and_the_log_says_so():
    cases, failed = rl("typography"), {"typography0": ["text"]}
    settings = Rewards(floor=0.2)
    plain = reward_policy.adjust(cases, JUDGED, failed, settings=settings)
    before = {"weights": {"ocr": 0.1}, "rose": {"ocr": 0.3}}
    damped = reward_policy.adjust(cases, JUDGED, failed, settings=settings, previous=before, regressed=["style"])
    assert damped["weights"]["ocr"] < plain["weights"]["ocr"]
    assert any("style got worse → times 0.5" in line for line in damped["log"])
    own = reward_policy.adjust(cases, JUDGED, failed, settings=settings, previous=before, regressed=["typography"])
    assert own["weights"] == plain["weights"]  # a reward that judges what got worse is needed more, not less


@given(
    st.lists(st.sampled_from([c for _, c in CHECKS]), max_size=30), st.floats(0, 1), st.integers(1, 300), st.randoms()
)
def test_weights_vectors_and_mix_always_add_up(capabilities: list, floor: float, prompts: int, rng: random.Random):
    cases = rl(*capabilities)
    failed = {c.case_id: [v for v, k in CHECKS if k == c.capability and rng.random() < 0.7] for c in cases}
    rule = reward_policy.adjust(cases, JUDGED, failed, settings=Rewards(prompts=prompts, floor=floor))
    assert sum(rule["mix"].values()) == prompts and min(rule["mix"].values()) >= 0
    for weights in (rule["weights"], *rule["categories"].values()):
        assert sum(weights.values()) == pytest.approx(1) and min(weights.values()) >= 0


def test_rl_prompts_are_a_suite_with_checks_and_none_is_an_evaluation_prompt(tmp_path: Path):
    rule = {"mix": {"typography": 6, "identity": 2, "poetry": 4}, "log": [], "weights": {"ocr": 1.0}}
    rule["categories"] = {"identity": {"consistency": 0.75, "ocr": 0.25}}
    near = ['a sign with the word "BREAD"', SUITE[1].text, "no text at all"]
    path = reward_policy.write(
        tmp_path,
        rule,
        recipe={"base": "rl-tiny", "window": [0, 1], "proxies": {"ocr": "alignment"}},
        pins={"round": 3},
        suite=SUITE,
        retrieved=lambda capability, n: near[:n],
        seed=0,
    )
    written = json.loads(path.read_text())
    prompts = load_suite(tmp_path / written["prompts"])
    assert Counter(p.prompt_id.split("-")[1] for p in prompts) == {"typography": 6, "identity": 2, "poetry": 1}
    assert near_evaluation([p.text for p in prompts]) == [] and all(p.checks for p in prompts)
    assert all(r.is_file() for p in prompts for r in p.references)
    recipe = tomllib.loads((tmp_path / written["recipe"]).read_text())
    changes = {"window": [0, 1], "proxies": {"ocr": "alignment"}}
    assert recipe == {"base": "rl-tiny", **changes, "weights": {"*": {"ocr": 1.0}, **rule["categories"]}}
    assert all(p.checks[0]["capability"] == p.category for p in prompts)
    assert written["round"] == 3 and "poetry: 1 of 4 prompts found" in written["log"][-1]
