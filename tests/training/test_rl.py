"""The RL loop: first ratio, gradients, reference, exact resume, lost rewards; and the balance rule."""

from __future__ import annotations

import math
import signal
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

from flywheel.core.errors import UsageError
from flywheel.remedies.reward_service import service
from tests.training.rl_parts import Redness, killed_at, prompts, serving
from training.checkpoint import Checkpoint, read_metrics
from training.losses.grpo import log_prob, log_ratio
from training.prompts import Reader, category, draw, velocity
from training.rewards import RewardsLost, Service
from training.rl.balance import Balance, check, mix, observe
from training.rl.policy import Policy
from training.rl.recipe import RLRecipe, rl_recipe
from training.rl.rollout import objective_velocity, roll_out
from training.rl.trainer import train
from training.sampling import Sampler

TINY = RLRecipe(
    name="test", steps=3, weights={"*": {"red": 1.0, "dark": 0.5}, "editing": {"red": 1.0}}, side=32, prompts=3,
    group=4, learning_rate=1e-3, clip=(1e-3, 1e-3), sampling_steps=4, window=(0, 2), lora_rank=4, check_every=2,
    held_out=3, checkpoint_every=1, min_range=0.0, final_learning_rate=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    return prompts(folder, 8), prompts(folder, 3, first=20)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, start, cards):
    return train(tmp_path_factory.mktemp("rl"), *cards, TINY, Redness(), init=start.path, seed=3)


def contents(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(checkpoint.path.iterdir())}


def without_clock(checkpoint: Checkpoint) -> list[dict]:
    lines = read_metrics(checkpoint.path.parent / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k != "cpu_seconds"} for line in lines]


def rolled(start, cards, recipe: RLRecipe, number: int = 0):
    """A policy and one prompt's group."""
    sampler = Sampler(start)
    policy = Policy(sampler.model, rank=recipe.lora_rank)
    reader = Reader(sampler.encoder, sampler.autoencoder, sampler.text_tokens, recipe.side)
    noise = torch.stack(
        [torch.stack([reader.noise("n", k, i) for i in range(recipe.group)]) for k in range(recipe.window[1] + 1)]
    )
    times = torch.from_numpy(sampler.times(recipe.sampling_steps, 16)).float()
    prompt = cards[0][number]
    return policy, roll_out(policy.model, prompt, reader.read(prompt), noise[0], noise[1:], times, recipe)


# Roll-outs ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("step", "number"), [("sde", 0), ("cps", 1)])
def test_the_first_ratio_is_one_under_hybrid_guidance_whatever_the_batch(start, cards, step, number):
    """Old log-prob: the conditional branch's at the drawn sample, although the sample was drawn with guidance."""
    recipe = replace(TINY, step=step)
    policy, group = rolled(start, cards, recipe, number)
    assert group.x.shape == (8, 16, 4, 4) and group.gap.abs().max() > 1e-4
    for size in (8, 3, 1):
        for first in range(0, 8, size):
            rows = slice(first, first + size)
            v = objective_velocity(policy.model, group.x[rows], group.t[rows], group.conditions, recipe)
            ratio = log_ratio(group.step(recipe, rows), group.z[rows], v, group.old[rows]).exp()
            assert float((ratio - 1).abs().max()) <= torch.finfo().eps  # the last bit, with other batch shapes
    every = group.step(recipe, slice(None))
    drawn = every.mean(group.x, group.old) + every.std[:, None, None, None] * group.z
    conditional = velocity(policy.model, group.x, group.t, group.conditions[0].prefix(policy.model))
    base = velocity(policy.model, group.x, group.t, group.conditions[1].prefix(policy.model))
    guided = base + recipe.cfg * (conditional - base)
    gap = log_prob(every, group.x, drawn, guided) - log_prob(every, group.x, drawn, conditional)
    torch.testing.assert_close(group.gap, gap, atol=2e-5, rtol=1e-4)
    # The sample is where the guided density has its unit noise.
    assert abs(float(every.standardised(group.x, drawn, guided).std()) - 1) < 0.1


def test_other_guidance_is_what_it_says(start, cards):
    _, plain = rolled(start, cards, replace(TINY, guidance="none"))
    _, inside = rolled(start, cards, replace(TINY, guidance="objective"))
    _, hybrid = rolled(start, cards, TINY)
    assert not plain.gap.any() and torch.equal(inside.latents, hybrid.latents)
    assert not torch.equal(inside.old, hybrid.old) and not torch.equal(plain.latents, hybrid.latents)


def test_nft_noises_a_group_alike_at_times_over_the_whole_path(start, cards):
    _, group = rolled(start, cards, replace(TINY, algorithm="nft"))
    assert group.x.shape == (8, 16, 4, 4) and group.t.unique().tolist() == [0.25, 0.75]
    count = len(group.t.unique())
    t = group.t.reshape(-1, 1, 1, 1)
    noise = ((group.x - (1 - t) * group.latents.repeat(count, 1, 1, 1)) / t).unflatten(0, (count, -1))
    torch.testing.assert_close(noise, noise[:, :1].expand_as(noise), atol=1e-5, rtol=0)
    assert float((noise[0] - noise[-1]).abs().mean()) > 0.5


def test_the_reference_is_the_start_with_lora_off_and_a_frozen_copy_else(start, cards):
    for rank in (4, 0):
        policy, group = rolled(start, cards, replace(TINY, lora_rank=rank))
        with torch.no_grad():
            for parameter in policy.trainable.values():
                parameter.add_(0.05)
            moved = objective_velocity(policy.model, group.x, group.t, group.conditions, TINY)
            with policy.reference() as reference:
                still = objective_velocity(reference, group.x, group.t, group.conditions, TINY)
            merged = start.model()
            merged.load_state_dict(policy.merged())
            same = objective_velocity(merged, group.x, group.t, group.conditions, TINY)
        torch.testing.assert_close(still, group.old, atol=1e-6, rtol=1e-5)
        assert float((moved - group.old).abs().max()) > 1e-3
        torch.testing.assert_close(same, moved, atol=1e-4, rtol=1e-3)


# The loop -----------------------------------------------------------------------------------------------------------
def test_killed_and_run_again_equals_uninterrupted_bit_for_bit(tmp_path, start, cards, finished):
    def once(**more):
        return train(tmp_path, *cards, TINY, Redness(), init=start.path, seed=3, **more)

    assert killed_at(2, once) == -signal.SIGKILL  # before the second check of the balance
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-00000001"]
    resumed = once()
    assert contents(resumed) == contents(finished) and without_clock(resumed) == without_clock(finished)


@pytest.mark.parametrize(("call", "kept"), [(10, 2), (14, 3)])  # in a check, in the last check
def test_lost_rewards_stop_the_run_after_a_checkpoint_and_nothing_is_lost(tmp_path, start, cards, finished, call, kept):
    def once(rewards):
        return train(tmp_path, *cards, replace(TINY, checkpoint_every=9), rewards, init=start.path, seed=3)

    with pytest.raises(RewardsLost, match=f"nobody scores: {kept} of 3 steps are kept in .*run the same command again"):
        once(Redness(dies_at=call))
    assert [p.name for p in tmp_path.glob("step-*")] == [f"step-0000000{kept}"]
    resumed = once(Redness())
    assert resumed.fingerprint == finished.fingerprint and without_clock(resumed) == without_clock(finished)


def test_a_service_that_dies_in_a_roll_out_stops_the_run_and_another_one_goes_on(tmp_path, start, cards, finished):
    with ExitStack() as server:
        url = server.enter_context(serving(service(Redness())))
        rewards = Service(url, attempts=2, backoff=0.01)
        with pytest.raises(RewardsLost, match="no answer in 2 tries .*: 1 of 3 steps are kept in .*bring the rewards"):
            train(tmp_path, *cards, TINY, rewards, init=start.path, seed=3, progress=lambda *_: server.close())
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-00000001"]
    with serving(service(Redness())) as url:
        resumed = train(tmp_path, *cards, TINY, Service(url), init=start.path, seed=3)
    assert contents(resumed) == contents(finished) and without_clock(resumed) == without_clock(finished)


@pytest.mark.parametrize(("rank", "algorithm"), [(4, "grpo"), (0, "guard"), (0, "nft")])
def test_every_trainable_tensor_gets_a_gradient(tmp_path, start, cards, rank, algorithm):
    """Read off Adam's first moments. LoRA's A moves from the second update on: its B starts as zero."""
    recipe = replace(TINY, lora_rank=rank, algorithm=algorithm, steps=1, held_out=0, kl=0.0)
    if algorithm == "guard":
        recipe = replace(recipe, clip=(1e-5, 1e-5))
    found = train(tmp_path, *cards, recipe, Redness(), init=start.path)
    moments = {k: v for k, v in found.tensors("optimizer").items() if k.startswith("exp_avg.")}
    assert len(moments) == (2 * 4 * 4 if rank else len(start.tensors("model")))
    assert [k for k, v in moments.items() if not v.abs().max() > 0] == []


def test_the_loop_raises_a_simple_reward(tmp_path, start, cards):
    recipe = replace(
        TINY, weights={"*": {"red": 1.0}}, prompts=2, group=8, steps=10, inner_steps=1, window=(0, 3), held_out=0,
        kl=0.0, lora_rank=0, clip=(1e-2, 1e-2), checkpoint_every=99,
    )  # fmt: skip
    made = train(tmp_path, cards[0][::2], [], recipe, Redness(), init=start.path)
    seen = [line["rewards"]["red"]["mean"] for line in read_metrics(made.path.parent / "metrics.jsonl")]
    assert min(seen[-3:]) > max(seen[:2]) + 0.02, seen


def test_what_is_logged(finished):
    lines = read_metrics(finished.path.parent / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert [line["lr"] for line in lines] == pytest.approx([1e-3, 0.75e-3, 0.5e-3])
    for line in lines:
        assert line["ratio_first"] <= 1e-6 and abs(line["ratio_mean"] - 1) < 0.05 and line["kl"] >= 0
        assert line["guided_gap"] != 0 and line["groups"] == 3 and 0 <= line["flat_groups"] < 3
        assert 0 <= line["clipped_below"] <= 1 and 0 <= line["clipped_above"] <= 1 and line["ratio_max"] > 1
        assert math.isclose(sum(line["mix"].values()), 1, abs_tol=1e-5) and set(line["mix"]) == {"color", "editing"}
        assert set(line["rewards"]["red"]) == {"mean", "std", "weight", "factor", "groups", "unscored"}
        assert line["rewards"]["dark"]["groups"] < 3  # edits give it no weight
    assert lines[0]["held_out"].keys() == {"red", "dark"} and "held_out" not in lines[1]
    assert set(lines[2]["balance"]) == {"red", "dark"}
    assert finished.config["held_out"] != finished.config["held_out_without_cfg"]


def test_the_result_is_a_plain_checkpoint(finished, start):
    assert finished.tensors("ema").keys() == start.tensors("ema").keys()
    assert Sampler(finished).sample(["a red disc"], size=(32, 32), steps=2).shape == (1, 32, 32, 3)
    assert finished.config["init"] == start.fingerprint and finished.fingerprint != start.fingerprint
    changed = [k for k, v in finished.tensors("ema").items() if not torch.equal(v, start.tensors("ema")[k])]
    assert len(changed) == 16  # four products in each of four blocks


def test_what_cannot_be_trained_is_named(tmp_path, start, cards, finished):
    def once(changes=None, given=cards, **more):
        return train(tmp_path, *given, replace(TINY, **(changes or {})), Redness(**more), init=start.path)

    with pytest.raises(UsageError, match="'dark' is not among the rewards: configured are red"):
        once(names=("red",))
    with pytest.raises(UsageError, match="held-out prompts must not be trained on"):
        once(given=(cards[0], cards[0][:2]))
    with pytest.raises(UsageError, match="no reward has a weight for color prompts"):
        once({"weights": {"editing": {"red": 1.0}}})
    with pytest.raises(UsageError, match="multiple of 8"):
        once({"side": 33})
    with pytest.raises(UsageError, match="no prompts"):
        once(given=([], []))
    with pytest.raises(UsageError, match="belongs to another run"):
        train(finished.path.parent, *cards, TINY, Redness(), init=start.path, seed=4)
    missing = replace(cards[0][1], references=(tmp_path / "none.png",))
    with pytest.raises(UsageError, match="prompt p1: a reference cannot be read"):
        once(given=([missing], []))
    torn = replace(cards[0][1], references=(tmp_path / "torn.png",))
    torn.references[0].write_bytes(b"no picture")
    with pytest.raises(UsageError, match="prompt p1: reference .*torn.png cannot be read"):
        once(given=([torn], []))
    faults = {"the last one, which adds no noise": {"window": (2, 2)}, "at least two pictures": {"group": 1}}
    faults |= {"use one of grpo, guard, nft": {"algorithm": "ppo"}}
    for message, change in faults.items():
        with pytest.raises(UsageError, match=message):
            replace(TINY, **change)
    with pytest.raises(UsageError, match="unknown recipe 'x'"):
        rl_recipe("x")


# Prompts and balance ------------------------------------------------------------------------------------------------
def test_prompts_are_drawn_at_their_shares_without_repeats(cards):
    kinds = {kind: [p for p in cards[0] if category(p) == kind] for kind in ("color", "editing")}
    drawn = draw(kinds, {"color": 0.75, "editing": 0.25}, 4, 0, "x")
    assert [category(p) for p in drawn].count("color") == 3
    assert len({p.prompt_id for p in drawn}) == 4 and drawn == draw(kinds, {"color": 0.75, "editing": 0.25}, 4, 0, "x")
    counts = [
        sum(category(p) == "color" for p in draw(kinds, {"color": 0.5, "editing": 0.5}, 3, s)) for s in range(200)
    ]
    assert set(counts) == {1, 2} and abs(sum(counts) / 600 - 0.5) < 0.06
    assert len(draw({"color": kinds["color"], "editing": []}, {"color": 0.5, "editing": 0.5}, 9, 1)) == 9
    with pytest.raises(UsageError, match="no prompt is left"):
        draw(kinds, {"color": 0.0}, 3, 1)


def test_a_reward_that_rises_while_its_proxy_falls_is_held_back_until_it_recovers():
    proxy = {str(i): 0.5 + 0.01 * (i % 3) for i in range(9)}
    fallen = {k: v - 0.1 for k, v in proxy.items()}
    balance, _ = check(Balance(), {"ocr": None}, {"ocr": proxy}, 1.0)
    assert check(balance, {"ocr": 0.1}, {"ocr": fallen}, 1.0)[0].factor("ocr") == 0.5  # risen since the start
    balance, _ = check(Balance(), {"ocr": 0.4}, {"ocr": proxy}, 1.0)
    balance, decided = check(balance, {"ocr": 0.6}, {"ocr": fallen}, 1.0)
    assert balance.factor("ocr") == 0.5 and decided["ocr"].startswith("held back: proxy -0.1000")
    balance, _ = check(balance, {"ocr": 0.6}, {"ocr": fallen}, 1.0)
    assert balance.factor("ocr") == 0.25
    # The reward fell back too: nothing rises while the proxy is down.
    balance, decided = check(balance, {"ocr": 0.3}, {"ocr": fallen}, 1.0)
    assert balance.factor("ocr") == 0.5 and decided["ocr"].startswith("kept")
    better = {k: v + 0.1 for k, v in proxy.items()}
    balance, _ = check(balance, {"ocr": 0.7}, {"ocr": better}, 1.0)
    assert balance.factor("ocr") == 1.0 and balance.best["ocr"].proxy == better
    noisy = {k: v + (0.3 if i % 2 else -0.26) for i, (k, v) in enumerate(better.items())}
    balance, decided = check(balance, {"ocr": 0.8}, {"ocr": noisy}, 1.0)
    assert balance.factor("ocr") == 1.0, decided  # within its own error
    balance, decided = check(balance, {"ocr": 0.8}, {"ocr": {}}, 1.0)
    assert decided == {"ocr": "not measured"} and Balance.from_dict(balance.to_dict()) == balance


def test_the_mix_leaves_what_teaches_nothing_down_to_a_floor():
    balance, base = Balance(), {"easy": 0.5, "good": 0.5}
    assert mix(balance, base, 0.25) == base
    for _ in range(20):
        balance = observe(balance, [("easy", False), ("good", True), ("good", False)])
    shares = mix(balance, base, 0.25)
    assert shares["easy"] == pytest.approx(0.25 / 0.75, abs=0.01) and sum(shares.values()) == pytest.approx(1)
