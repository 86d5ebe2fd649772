"""Rewards by name on the shared scorers, and the same over HTTP from a real server."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from fastapi import Response
from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.core.scorer import Item
from flywheel.remedies.prompts import hold_out, rl_capabilities, write_prompts
from flywheel.remedies.reward_service import service
from flywheel.remedies.rewards import Local
from flywheel.signals.suite import Prompt, load_suite
from tests.training.rl_parts import serving
from training.recipe_file import load
from training.rewards import Request, RewardsLost, Service, decode, encode
from training.rl.recipe import RL_RECIPES


def samples(capability: str, count: int = 2):
    from curation.synthesis import synthesise

    return list(synthesise(capability, count, seed=1, exclude=frozenset()))


def request(sample, image: bytes | None = None) -> Request:
    return Request(Item(image or sample.image, sample.caption, sample.task, sample.references), sample.checks)


@pytest.fixture(scope="module")
def requests():
    """A right card, the wrong card, a damaged file, and an edit that kept everything."""
    (one, other), (edit,) = samples("position"), samples("identity", 1)
    return [request(one), request(one, other.image), request(one, one.image[:60]), request(edit)]


@pytest.fixture(scope="module")
def local():
    return Local(("instruction", "consistency", "portrait"))


def test_rewards_are_the_scorers_judgement(requests, local):
    right, wrong, broken, edit = local.score(requests)
    assert right["instruction"] == 1.0 and wrong["instruction"] < 0.7
    assert right["consistency"] is None and edit["consistency"] > 0.85 and edit["instruction"] == 1.0
    assert right["portrait"] == 0.0  # a card has no face
    assert broken["consistency"] is None and broken["portrait"] is None and broken["instruction"] is None
    with pytest.raises(UsageError, match="unknown reward 'beauty'"):
        Local(("beauty",))


def test_a_tint_of_the_whole_picture_is_not_consistent():
    (edit,) = samples("identity", 1)
    pixels = np.asarray(Image.open(io.BytesIO(edit.image)).convert("RGB"))
    tinted = io.BytesIO()
    Image.fromarray(np.clip(pixels * (1.0, 1.3, 1.3), 0, 255).astype(np.uint8)).save(tinted, "PNG")
    kept, shifted = (
        r["consistency"] for r in Local(("consistency",)).score([request(edit), request(edit, tinted.getvalue())])
    )
    assert kept > 0.95 and shifted < 0.8  # 0.97 without a look at colour


def test_the_ocr_reward_is_one_minus_edits_over_the_reference_length():
    word = samples("typography", 1)[0]
    other = word.caption.replace('"', '"X', 1)  # one letter more was asked for
    rewards = Local(("ocr",))
    found = rewards.score([request(word), Request(Item(word.image, other)), Request(Item(word.image, "a card"))])
    length = len(word.checks[0]["text"]) + 1
    assert [row["ocr"] for row in found] == [1.0, pytest.approx(1 - 1 / length), None]


def test_the_service_gives_the_same_scores_and_is_asked_again_when_it_stumbles(requests, local):
    app, stumbles = service(local), iter([503, 502])

    @app.middleware("http")
    async def stumble(incoming, go_on):
        status = next(stumbles, None)
        return Response(status_code=status) if status else await go_on(incoming)

    assert decode(encode(requests[3])) == requests[3]
    with serving(app) as url:
        remote = Service(url, backoff=0.01)  # its first question meets both stumbles; it also waits for the start
        assert remote.names == local.names and remote.score(requests) == local.score(requests)
        with pytest.raises(UsageError, match="answered HTTP 400: .*not a reward request"):
            remote.ask("POST", "score", {"requests": [{"image": "§"}]})
        with pytest.raises(UsageError, match="answered HTTP 404"):
            remote.ask("GET", "nothing")
    with pytest.raises(RewardsLost, match="gave no answer in 3 tries .ConnectError"):
        replace(remote, attempts=3).score(requests[:1])
    with pytest.raises(UsageError, match="give a URL such as"):
        Service("rewards").score([])


def test_prompts_of_rl_cases_keep_out_of_the_suite(tmp_path):
    from flywheel.cases.events import Case

    def case(number: int, capability: str, track: str | None = "rl", status: str = "routed") -> Case:
        return Case(str(number), 1, capability, track, "p", "a prompt", status)

    cases = [case(1, "count"), case(2, "identity"), case(3, "identity"), case(4, "color", "pretraining")]
    cases += [case(5, "object", "rl", "closed"), case(6, "photorealism")]
    assert rl_capabilities(cases) == ["identity", "count"]
    with pytest.raises(UsageError, match="no open case on the RL track"):
        rl_capabilities(cases[3:])
    held = samples("count", 1)[0].caption
    made = write_prompts(tmp_path / "p.jsonl", ["identity", "count"], 12, seed=0, exclude=frozenset([held]))
    suite = load_suite(tmp_path / "p.jsonl")
    assert made == {"identity": 12, "count": 12} and len(suite) == 24
    assert {p.checks[0]["capability"] for p in suite} == {"identity", "count"}
    assert all(len(p.reference_bytes()) == (p.task == "ti2i") for p in suite) and held not in {p.text for p in suite}
    with pytest.raises(UsageError, match="no generator serves 'x'"):
        write_prompts(tmp_path / "q.jsonl", ["x"], 1, seed=0, exclude=frozenset())


def test_what_is_watched_is_spread_over_the_prompts_and_kept_out_of_training():
    rows = [Prompt(f"p{i}", f"card {i % 25}", "t2i", (), ({"capability": "ab"[i >= 20]},)) for i in range(40)]
    given, watched = hold_out(rows, 4)
    assert [p.prompt_id for p in watched] == ["p0", "p10", "p20", "p30"]
    assert len(given) == 33 and not {p.text for p in given} & {p.text for p in watched}  # p5 says what p30 says
    assert len(hold_out(rows, 99)[1]) == 10 and hold_out(rows, 0) == (rows, []) and hold_out(rows[:3], 4)[1] == []


def test_recipes_from_a_file(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('base = "rl-tiny"\nwindow = [1, 3]\n[weights."*"]\nocr = 1.0\n')
    assert load(str(path), RL_RECIPES).window == (1, 3) and load(str(path), RL_RECIPES).rewards == ("ocr",)
    faults = {"steps = 3": "names no base", "base = 'rl-tiny'\nstep_count = 3": "has no step_count", "[": "cannot be"}
    for text, message in faults.items():
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            load(str(path), RL_RECIPES)
