"""A run goes on from another one: longer it is the run that it would have been, and what changed is on record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flywheel.core.errors import UsageError
from tests.training.tiny_runs import STEPS, TINY, contents, run
from training import saving
from training.checkpoint import Checkpoint, read_metrics
from training.extension import recipe_of

ONE = TINY.change(stages=("S1",))  # of one stage, whose order of batches does not depend on the number of steps


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, snapshot: Path) -> Checkpoint:
    return run(tmp_path_factory.mktemp("short"), snapshot, recipe=ONE, steps=3)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, snapshot: Path) -> Checkpoint:
    return run(tmp_path_factory.mktemp("long"), snapshot, recipe=ONE, steps=6)


def weights(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {k: v for k, v in contents(checkpoint).items() if k != "config.json"}


def test_extended_equals_a_run_that_was_as_long_from_the_start(tmp_path, snapshot, short, long):
    before = contents(short)
    extended = run(tmp_path / "out", snapshot, recipe=ONE, steps=6, extend=short.path.parent)
    assert weights(extended) == weights(long) and contents(short) == before
    lines = {line["step"]: line["loss"] for line in read_metrics(tmp_path / "out" / "metrics.jsonl")}
    whole = {line["step"]: line["loss"] for line in read_metrics(long.path.parent / "metrics.jsonl")}
    assert lines == {step: whole[step] for step in (4, 5, 6)}
    (origin,) = extended.config["lineage"]
    assert origin == {
        "run": short.config["run"],
        "fingerprint": short.fingerprint,
        "step": 3,
        "changed": {"steps": [3, 6]},
    }
    assert extended.config["run"] != long.config["run"] and "lineage" not in long.config
    assert run(tmp_path / "out", snapshot, recipe=ONE, steps=6, extend=short.path.parent).path == extended.path


def test_another_learning_rate_counts_from_the_next_step_and_the_lineage_grows(tmp_path, snapshot, short, long):
    slower = ONE.change(learning_rate=1e-4, final_learning_rate=0.5)
    once = run(tmp_path / "once", snapshot, recipe=slower, steps=5, extend=short.path)
    rates = [line["lr"] for line in read_metrics(tmp_path / "once" / "metrics.jsonl")]
    assert rates == pytest.approx([1e-4 * (1 - 0.5 * step / 4) for step in (3, 4)])
    first = read_metrics(tmp_path / "once" / "metrics.jsonl")[0]["loss"]
    assert first == read_metrics(long.path.parent / "metrics.jsonl")[3]["loss"]  # the same weights and rows
    assert any(not torch.equal(t, long.tensors("model")[n]) for n, t in once.tensors("model").items())
    twice = run(tmp_path / "twice", snapshot, recipe=replace(slower, warmup=9), steps=7, extend=tmp_path / "once")
    changes = [origin["changed"] for origin in twice.config["lineage"]]
    rate = ONE.stages[0].learning_rate
    assert changes == [
        {"steps": [3, 5], "final_learning_rate": [1.0, 0.5], "learning_rate": {"S1": [rate, 1e-4]}},
        {"steps": [5, 7], "warmup": [2, 9]},
    ]
    assert recipe_of(tmp_path / "twice") == replace(slower, warmup=9)


def test_steps_that_are_added_belong_to_the_stage_that_was_reached_and_those_after_it(tmp_path, snapshot, trained):
    """`trained` has four steps of S1 and three of S2; its checkpoint at step 2 is in S1."""
    run(tmp_path / "last", snapshot, steps=9, extend=trained.path.parent)
    lines = read_metrics(tmp_path / "last" / "metrics.jsonl")
    assert [(line["step"], line["stage"]) for line in lines] == [(8, "S2"), (9, "S2")]
    early = trained.path.parent / "step-00000004"
    run(tmp_path / "early", snapshot, steps=11, extend=early)
    lines = read_metrics(tmp_path / "early" / "metrics.jsonl")
    assert [line["stage"] for line in lines] == ["S1"] * 2 + ["S2"] * 5


def test_a_killed_extension_resumes(tmp_path, snapshot, short, long):
    seen = []

    def stop(done, steps, line):
        seen.append(done)
        if done == 5:
            raise KeyboardInterrupt

    arguments = {"recipe": ONE, "steps": 6, "extend": short.path.parent}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, snapshot, progress=stop, **arguments)
    assert weights(run(tmp_path, snapshot, **arguments)) == weights(long) and seen == [4, 5]


def test_an_adapter_goes_on_too(tmp_path, snapshot, start):
    lora = ONE.change(lora_rank=2)
    arguments = {"recipe": lora, "init": start.path}
    run(tmp_path / "short", snapshot, steps=2, **arguments)
    long = run(tmp_path / "long", snapshot, steps=4, **arguments)
    extended = run(tmp_path / "out", snapshot, steps=4, extend=tmp_path / "short", **arguments)
    assert weights(extended) == weights(long)
    early = run(tmp_path / "early", snapshot, steps=4, extend=tmp_path / "long" / "step-00000002", **arguments)
    assert weights(early) == weights(long) and len(early.config["lineage"][0]["fingerprint"]) == 64
    with pytest.raises(UsageError, match="adapts another checkpoint: give the same --init"):
        run(tmp_path / "x", snapshot, steps=4, extend=tmp_path / "short", recipe=lora, init=long.path)


def test_a_run_by_reward_is_not_extended(tmp_path, snapshot, start, short):
    folder = tmp_path / "rl"
    saving.write(folder / "final", {"ema": {}}, None, {**short.config, "rl": {}})
    with pytest.raises(UsageError, match="is not of a training run on shards"):
        run(tmp_path / "x", snapshot, recipe=ONE, steps=9, extend=folder)


def test_what_is_no_extension_is_refused(tmp_path, snapshot, trained, short):
    wrong = [
        ({"steps": 3}, "has 3 steps: give more"),
        ({"recipe": ONE.change(dropout=0.5)}, "has another dropout: only steps, rates and warm-up can change"),
        ({"recipe": ONE.change(t2i_share=0.5)}, "other stages: only their steps and learning rates"),
        ({"recipe": TINY}, "other stages"),
        ({"seed": 6}, "has seed 5: give the same --seed"),
        ({"extend": tmp_path}, "has no checkpoint: give the folder of a training run"),
    ]
    for changes, sentence in wrong:
        arguments = {"recipe": ONE, "steps": STEPS, "extend": short.path.parent} | changes
        with pytest.raises(UsageError, match=sentence):
            run(tmp_path / "out", snapshot, **arguments)
    with pytest.raises(UsageError, match="belongs to another run .*and --extend to go on from that run"):
        run(trained.path.parent, snapshot, steps=STEPS + 1)
    assert not (tmp_path / "out").exists()
