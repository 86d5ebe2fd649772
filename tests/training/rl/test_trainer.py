"""The RL loop: gradients, exact resume, lost rewards, what it logs."""

from __future__ import annotations

import math
import signal
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
import torch

from flywheel.core.errors import UsageError
from flywheel.remedies.reward_service import service
from tests.training.rl.tiny import TINY, without_clock
from tests.training.rl_parts import Redness, killed_at, serving, written_late
from tests.training.tiny_runs import contents
from training.checkpoint import Checkpoint, read_metrics
from training.distributed import World
from training.rewards import RewardsLost, Service
from training.rl.objective import row_losses
from training.rl.recipe import rl_recipe
from training.rl.rollout import roll_out
from training.rl.trainer import NothingToLearn, _Trainer, train
from training.sampling import Sampler
from training.state import trained


@pytest.fixture(scope="module")
def finished(tmp_path_factory, start, cards):
    return train(tmp_path_factory.mktemp("rl"), *cards, TINY, Redness(), init=start.path, seed=3)


def test_killed_and_run_again_equals_uninterrupted_bit_for_bit(tmp_path, start, cards, finished, monkeypatch):
    def once(**more):
        return train(tmp_path, *cards, TINY, Redness(), init=start.path, seed=3, **more)

    assert killed_at(2, once) == -signal.SIGKILL  # before the second check of the balance
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-00000001"]
    resumed = once(progress=written_late(monkeypatch, "training.rl.trainer"))
    assert contents(resumed) == contents(finished) and without_clock(resumed) == without_clock(finished)
    late, prompt = (Checkpoint(c.path.parent / "step-00000002") for c in (resumed, finished))
    assert contents(late) == contents(prompt)


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
    checkpoint = train(tmp_path, *cards, recipe, Redness(), init=start.path)
    moments = {k: v for k, v in checkpoint.tensors("optimizer").items() if k.startswith("exp_avg.")}
    assert len(moments) == (2 * 4 * 4 if rank else len(start.tensors("model")))
    assert [k for k, v in moments.items() if not v.abs().max() > 0] == []


def test_the_loop_raises_a_simple_reward(tmp_path, start, cards):
    recipe = replace(
        TINY, weights={"*": {"red": 1.0}}, prompts=2, group=8, steps=10, inner_steps=1, window=(0, 3), held_out=0,
        kl=0.0, lora_rank=0, clip=(1e-2, 1e-2), checkpoint_every=99,
    )  # fmt: skip
    checkpoint = train(tmp_path, cards[0][::2], [], recipe, Redness(), init=start.path)
    means = [line["rewards"]["red"]["mean"] for line in read_metrics(checkpoint.path.parent / "metrics.jsonl")]
    assert min(means[-3:]) > max(means[:2]) + 0.02, means


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
    def once(changes=None, prompts=cards, **more):
        return train(tmp_path, *prompts, replace(TINY, **(changes or {})), Redness(**more), init=start.path)

    with pytest.raises(UsageError, match="'dark' is not among the rewards: configured are red"):
        once(names=("red",))
    with pytest.raises(UsageError, match="held-out prompts must not be trained on"):
        once(prompts=(cards[0], cards[0][:2]))
    with pytest.raises(UsageError, match="no reward has a weight for color prompts"):
        once({"weights": {"editing": {"red": 1.0}}})
    with pytest.raises(UsageError, match="multiple of 8"):
        once({"side": 33})
    with pytest.raises(UsageError, match="no prompts"):
        once(prompts=([], []))
    with pytest.raises(UsageError, match="belongs to another run"):
        train(finished.path.parent, *cards, TINY, Redness(), init=start.path, seed=4)
    missing = replace(cards[0][1], references=(tmp_path / "none.png",))
    with pytest.raises(UsageError, match="prompt p1: a reference cannot be read"):
        once(prompts=([missing], []))
    torn = replace(cards[0][1], references=(tmp_path / "torn.png",))
    torn.references[0].write_bytes(b"no picture")
    with pytest.raises(UsageError, match="prompt p1: reference .*torn.png cannot be read"):
        once(prompts=([torn], []))
    faults = {"the last one, which adds no noise": {"window": (2, 2)}, "at least two pictures": {"group": 1}}
    faults |= {"'red' cannot watch itself": {"proxies": {"red": "red"}}}
    faults |= {"use one of grpo, guard, nft": {"algorithm": "ppo"}}
    for message, change in faults.items():
        with pytest.raises(UsageError, match=message):
            replace(TINY, **change)
    with pytest.raises(UsageError, match="unknown recipe 'x'"):
        rl_recipe("x")


@dataclass
class Faulty(Redness):
    """`red` is `value` for every picture; with `rows`, that many rows are missing; `shape` changes what is given."""

    value: object = 0.5
    rows: int = 0
    shape: object = list

    def score(self, requests):
        scores = [row | {"red": self.value} for row in super().score(requests)]
        return self.shape(scores[: len(scores) - self.rows])


ONLY_RED = {"weights": {"*": {"red": 1.0}}, "proxies": {}, "steps": 5, "min_range": 0.01, "flat_steps": 2}


@pytest.mark.parametrize(("value", "named"), [(0.5, "the same, 0.5, for"), (math.nan, "not a number for any of")])
def test_a_reward_without_a_range_stops_the_run_and_is_named(tmp_path, start, cards, caplog, value, named):
    recipe = replace(TINY, **ONLY_RED)
    for _ in range(2):  # run again, it says so at once
        with pytest.raises(NothingToLearn, match="in 2 steps in a row, no reward told .* apart by 0.01"):
            train(tmp_path, *cards, recipe, Faulty(value=value), init=start.path)
    assert [p.name for p in tmp_path.glob("step-*")][-1] == "step-00000002"
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2 and not (tmp_path / "final").exists()
    assert f"step 1: reward red is {named} all 12 pictures" in caplog.text
    assert "no other verifier watches reward red" in caplog.text


def test_a_short_run_of_flat_steps_alone_says_that_nothing_was_learnt(tmp_path, start, cards, caplog):
    recipe = replace(TINY, **ONLY_RED | {"steps": 1, "flat_steps": 10}, held_out=0)
    train(tmp_path, *cards, recipe, Faulty(), init=start.path)
    assert "all 1 steps were flat" in caplog.text


def test_scores_that_are_not_finite_are_named_and_the_others_count(tmp_path, start, cards, caplog):
    class Rarely(Redness):
        def score(self, requests):
            rows = super().score(requests)
            return [rows[0] | {"red": math.inf}, *rows[1:]]

    train(tmp_path, *cards, replace(TINY, steps=1, held_out=0), Rarely(), init=start.path)
    assert "step 1: 3 scores of reward red are not finite: not counted" in caplog.text  # one of each prompt


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"value": [0.1, 0.2]}, "reward 'red' gave list"),
        ({"value": 10**400}, "reward 'red' gave int"),
        ({"rows": 1}, "gave 3 rows for 4 pictures"),
        ({"shape": lambda rows: [row["red"] for row in rows]}, "give a list with one {reward: number} per picture"),
        ({"shape": lambda rows: None}, "give a list with one {reward: number} per picture"),
    ],
)
def test_a_reward_of_another_shape_is_named(tmp_path, start, cards, fault, message):
    with pytest.raises(UsageError, match=message):
        train(tmp_path, *cards, replace(TINY, **ONLY_RED, held_out=0), Faulty(**fault), init=start.path)


def test_extended_equals_a_run_that_was_as_long_from_the_start(tmp_path, start, cards):
    even = replace(TINY, final_learning_rate=1.0)

    def once(folder, steps, **more):
        recipe = replace(even, steps=steps, **more.pop("changes", {}))
        return train(tmp_path / folder, *cards, recipe, Redness(), init=start.path, seed=3, **more)

    short, long = once("short", 2), once("long", 3)
    longer = once("longer", 3, extend=tmp_path / "short")
    assert {k: v for k, v in contents(longer).items() if k != "config.json"} == {
        k: v for k, v in contents(long).items() if k != "config.json"
    }
    (origin,) = longer.config["lineage"]
    assert origin == {
        "run": short.config["run"],
        "fingerprint": short.fingerprint,
        "step": 2,
        "changed": {"steps": [2, 3]},
    }
    slower = once("slower", 4, changes={"learning_rate": 1e-5}, extend=longer.path)
    assert [o["changed"] for o in slower.config["lineage"]][1] == {"steps": [3, 4], "learning_rate": [1e-3, 1e-5]}
    assert [line["lr"] for line in read_metrics(tmp_path / "slower" / "metrics.jsonl")] == [1e-5]
    for wrong, sentence in (
        ({"changes": {"kl": 0.5}}, "has another kl: only steps, learning_rate, final_learning_rate can change"),
        ({"steps": 2}, "has 2 steps: give more"),
        ({"extend": start.path}, "is not of such a run"),
    ):
        with pytest.raises(UsageError, match=sentence):
            once("x", **{"steps": 5, "extend": tmp_path / "short"} | wrong)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("changes", [{}, {"algorithm": "nft"}, {"algorithm": "guard", "lora_rank": 0, "kl": 0.1}])
def test_everything_is_computed_on_the_device_of_the_loop(start, cards, changes):
    """On a device that holds no values, and refuses what is on another one."""
    recipe, meta = replace(TINY, rows=3, **changes), torch.device("meta")
    trainer = _Trainer(start, recipe, Redness(), 0, None, *cards, World())
    trainer.device = trainer.reader.device = meta
    for model in (trainer.policy.model, trainer.policy._reference):
        model.to(meta)
    noise = torch.zeros(1 + recipe.window[1], recipe.group, *trainer.reader.shape, device=meta)
    for prompt in cards[0][:2]:
        conditions = trainer.reader.read([prompt])[0]
        group = roll_out(trainer.policy.model, prompt, conditions, noise[0], noise[1:], trainer.times.to(meta), recipe)
        for loss, ratio, kl in row_losses(trainer.policy, group, torch.zeros(recipe.group, device=meta), recipe):
            assert loss.device == ratio.device == kl.device == meta
            loss.sum().backward()
    assert all(p.grad.device == meta for p in trained(trainer.policy.model).values())


def test_a_run_that_diverges_stops_and_stores_no_broken_weights(tmp_path, start, cards):
    wild = replace(TINY, lora_rank=0, kl=1e9, learning_rate=1e8)
    with pytest.raises(UsageError, match="lower the learning rate or check the data of this step; run again"):
        train(tmp_path, *cards, wild, Redness(), init=start.path)
    assert not (tmp_path / "final").exists()
