"""The distillation loop: gradients, teachers, backward simulation, own grid, exact resume."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flywheel.core.errors import UsageError
from flywheel.generators import describe, open_generator
from flywheel.rounds.sample import sample_pictures
from tests.training.dmd.tiny import TINY
from tests.training.rl_parts import killed_at, prompts, written_late
from training import saving
from training.checkpoint import Checkpoint, read_metrics
from training.distributed import World
from training.dmd.recipe import dmd_recipe
from training.dmd.trainer import _Trainer, train
from training.sampling import Sampler
from training.state import trained


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    return prompts(tmp_path_factory.mktemp("cards"), 8)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, start, cards):
    return train(tmp_path_factory.mktemp("dmd"), cards, TINY, init=start.path, seed=3)


def job(start, cards, **changes) -> _Trainer:
    recipe = replace(TINY, **changes)
    teachers = [Checkpoint(Path(t)) for t in recipe.teachers] or [start]
    return _Trainer(start, teachers, cards, recipe, 0, None, World())


def test_killed_and_run_again_equals_uninterrupted_bit_for_bit(tmp_path, start, cards, finished):
    def once(**more):
        return train(tmp_path, cards, TINY, init=start.path, seed=3, **more)

    assert killed_at(2, once) == -signal.SIGKILL
    assert [p.name for p in tmp_path.glob("*-*")] == ["step-00000001"]
    resumed = once()
    assert {p.name: p.read_bytes() for p in resumed.path.iterdir()} == {
        p.name: p.read_bytes() for p in finished.path.iterdir()
    }
    lines = read_metrics(finished.path.parent / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2] and lines[0]["fake_loss"] > 0 and lines[0]["grad_norm"] > 0
    assert [line["lr"] for line in lines] == pytest.approx([1e-3, 0.5e-3])


@pytest.mark.parametrize("changes", [{}, {"output": "end"}, {"decoupled": True, "t2i_share": 0.0}])
def test_every_tensor_of_student_and_fake_gets_a_gradient_and_the_teacher_none(start, cards, changes):
    work = job(start, cards, **changes)
    before = {n: p.clone() for n, p in work.teachers[0].named_parameters()}
    work.one_step()
    for role, named in work.named.items():
        state = work.optimizers[role].state
        assert [n for n, p in named.items() if not state[p]["exp_avg_sq"].abs().max() > 0] == [], role
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in work.teachers[0].named_parameters())


def test_the_student_is_trained_where_its_own_steps_lead(start, cards):
    """Backward simulation follows the sampler's trajectory; the clean prediction from there has a gradient."""
    work = job(start, cards, t2i_share=1.0)
    (batch,) = work._batches("student", 0)
    sampler, prompt = Sampler(start), cards[0]
    times = work.times
    for step in range(3):
        at = replace(batch, step=step, conditions=work.reader.read([prompt])[0])
        out = work._student_output(at)
        assert out.requires_grad and out.shape == batch.noise.shape
        # The same from the sampler's loop on the grid cut off after this step: its last step goes to 0 at once.
        sampler.config = start.config | {"sigmas": times[: step + 1].tolist()}
        same = sampler.latents([prompt.text] * len(batch.noise), noise=batch.noise, cfg=1.0)
        torch.testing.assert_close(out.detach(), same, atol=2e-5, rtol=1e-4)


def test_teachers_weigh_in_by_step(tmp_path, start, cards, finished):
    both = (str(start.path), str(finished.path))

    def pull(step: int, **changes):
        work = job(start, cards, t2i_share=1.0, **changes)
        (batch,) = work._batches("student", 0)
        work.student.zero_grad()
        work._student_loss(replace(batch, step=step)).sum().backward()
        return work.student.image_out.weight.grad.clone()

    alone = [pull(1, teachers=(t,)) for t in both]
    torch.testing.assert_close(pull(1, teachers=both, teacher_weights=((1.0,), (0.0,))), alone[0])
    by_step = {"teachers": both, "teacher_weights": ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0))}
    torch.testing.assert_close(pull(1, **by_step), alone[1])
    torch.testing.assert_close(pull(1, teachers=both), (alone[0] + alone[1]) / 2, atol=1e-6, rtol=1e-4)
    assert not torch.allclose(alone[0], alone[1])


def test_sampling_follows_the_students_own_grid_without_guidance(tmp_path, finished):
    sampler = Sampler(finished)
    assert sampler.times(40, 16).tolist() == [1.0, 0.8, 0.4, 0.0] and sampler.guidance(None) == 1.0
    report = sample_pictures(
        open_generator(describe(finished.path)), "student", "a red disc", output=tmp_path, size=(32, 32)
    )
    assert (report["steps"], report["cfg"]) == (3, 1.0)
    pictures = [sampler.sample(["a red disc"], size=(32, 32), cfg=cfg) for cfg in (None, 1.0, 3.0)]
    assert (pictures[0] == pictures[1]).all() and (pictures[0] != pictures[2]).any()
    calls = []
    decode, sampler.model.decode = sampler.model.decode, lambda *a: calls.append(a) or decode(*a)
    sampler.sample(["a red disc"], size=(32, 32))
    assert len(calls) == 3


@pytest.mark.parametrize("rank", [0, 2])
def test_extended_equals_a_run_that_was_as_long_from_the_start(tmp_path, start, cards, finished, rank):
    def once(folder, steps, **more):
        recipe = replace(TINY, steps=steps, final_learning_rate=1.0, lora_rank=rank)
        return train(tmp_path / folder, cards, recipe, init=start.path, seed=3, **more)

    short, long = once("short", 1), once("long", 2)
    longer = once("longer", 2, extend=short.path.parent)
    for part in ("model", "ema", "fake", "model_optimizer", "fake_optimizer"):
        one, two = long.tensors(part), longer.tensors(part)
        assert one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)
    assert [o["changed"] for o in longer.config["lineage"]] == [{"steps": [1, 2]}] and long.config["lineage"] == []
    with pytest.raises(UsageError, match="has seed 3: give the same --seed"):
        train(tmp_path / "x", cards, replace(TINY, steps=3), init=start.path, seed=4, extend=finished.path)


@pytest.mark.parametrize("changes", [{}, {"output": "end"}, {"decoupled": True}, {"lora_rank": 2}])
def test_everything_is_computed_on_the_device_of_the_loop(start, cards, changes):
    """On a device that holds no values, and refuses what is on another one."""
    trainer = job(start, cards, **changes)
    meta = trainer.device = trainer.reader.device = torch.device("meta")
    trainer.reader._known.clear()
    for model in (trainer.student, trainer.fake, *trainer.teachers):
        model.to(meta)
    trainer.times = trainer.times.to(meta)
    for batch in trainer._batches("student", 0):
        for loss in (trainer._student_loss(batch), trainer._fake_loss(batch)):
            assert loss.device == meta and loss.shape == batch.t.shape
            loss.sum().backward()
    assert all(p.grad.device == meta for p in trained(trainer.student).values())


def test_the_mixture_is_data(start, cards):
    for share, counts in ((1.0, {0: 4}), (0.5, {0: 2, 1: 2}), (0.25, {0: 1, 1: 3})):
        batches = job(start, cards, t2i_share=share)._batches("fake", 1)
        assert {0 if b.conditions[0].references is None else 1: len(b.noise) for b in batches} == counts
        assert all(((b.t >= 0.02) & (b.t <= 0.98)).all() for b in batches)


def test_what_cannot_be_distilled_is_named(tmp_path, start, cards, finished):
    with pytest.raises(UsageError, match="no prompts to distil on"):
        train(tmp_path, [], TINY, init=start.path)
    with pytest.raises(UsageError, match="belongs to another run"):
        train(finished.path.parent, cards, TINY, init=start.path, seed=4)
    unlike = saving.write(
        tmp_path / "other", {n: start.tensors(n) for n in ("model", "ema")}, start.autoencoder(),
        start.config | {"condition": start.config["condition"] | {"tokens": 8}},
    )  # fmt: skip
    with pytest.raises(UsageError, match="read different conditions"):
        train(tmp_path / "x", cards, replace(TINY, teachers=(str(unlike.path),)), init=start.path)
    with pytest.raises(UsageError, match="is not a checkpoint"):
        train(tmp_path / "x", cards, replace(TINY, teachers=(str(tmp_path / "none"),)), init=start.path)
    faults = {"not a time grid": {"sigmas": (0.5, 1.0)}, "use one of clean, end": {"output": "x"}}
    faults |= {"1 rows, each of 1 or 3": {"teacher_weights": ((1.0, 1.0),)}, "a number from 0 to 1": {"t2i_share": 2.0}}
    for message, change in faults.items():
        with pytest.raises(UsageError, match=message):
            replace(TINY, **change)
    with pytest.raises(UsageError, match="has no sigma"):
        dmd_recipe("dmd-tiny", sigma=1)


def test_a_run_that_diverges_stops_and_stores_no_broken_weights(tmp_path, start, cards):
    wild = replace(TINY, learning_rate=1e8, fake_learning_rate=1e8, steps=3)
    with pytest.raises(UsageError, match="lower the learning rate or check the data of this step; run again"):
        train(tmp_path, cards, wild, init=start.path)
    assert not (tmp_path / "final").exists()


def test_adapters_of_student_and_fake_alone_train_and_a_run_resumes_to_the_same_bits(
    tmp_path, start, cards, monkeypatch
):
    """From a checkpoint that was written while the next step was taken."""
    adapted = replace(TINY, lora_rank=3)

    def once(folder, **more):
        return train(tmp_path / folder, cards, adapted, init=start.path, seed=3, **more)

    whole = once("whole", progress=written_late(monkeypatch, "training.dmd.trainer"))
    shutil.copytree(whole.path.parent / "step-00000001", tmp_path / "resumed" / "step-00000001")
    resumed = once("resumed")
    assert {p.name: p.read_bytes() for p in resumed.path.iterdir()} == {
        p.name: p.read_bytes() for p in whole.path.iterdir()
    }
    before, after = start.tensors("ema"), whole.tensors("ema")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert after.keys() == before.keys()
    assert moved == {f"blocks.{b}.{layer}.weight" for b in range(4) for layer in adapted.lora_targets}
    assert whole.tensors("fake").keys() == whole.tensors("trainable").keys()
    assert not torch.equal(whole.tensors("fake")["blocks.0.qkv.lora_A.default.weight"],
                           whole.tensors("trainable")["blocks.0.qkv.lora_A.default.weight"])  # fmt: skip
    assert whole.config["lora"]["rank"] == 3 and Sampler(whole).times(9, 16).tolist() == [1.0, 0.8, 0.4, 0.0]
