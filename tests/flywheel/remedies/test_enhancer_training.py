"""Training the enhancer's language model: a tiny one, trained and used; and its rewards."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest

from benchmarks.tiny_enhancer import write_tiny_enhancer
from flywheel.core.errors import UsageError
from flywheel.presets import Enhancer
from flywheel.remedies import enhancer
from flywheel.remedies.enhancer import answer, load_enhancer
from flywheel.remedies.enhancer_data import write
from flywheel.rounds.tracks import whole_folder
from flywheel.signals.suite import Prompt, write_rows
from tests.flywheel.remedies.wordings import FINE


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Qwen3 with a byte-level tokenizer."""
    return write_tiny_enhancer(tmp_path_factory.mktemp("qwen"), FINE)


def test_sft_then_grpo_through_trl_then_use(tiny: Path, tmp_path: Path):
    from flywheel.remedies import enhancer_training as training

    write(tmp_path, [], FINE, [Prompt("p", "unrelated evaluation", "t2i", (), ())], {}, count=6, seed=0)
    data = tmp_path / "train.jsonl"
    options = {"steps": 12, "batch": 4, "lora": 0, "seed": 0, "learning_rate": 1e-2}
    losses = training.fine_tune(str(tiny), data, tmp_path / "sft", **options)
    assert losses["last_loss"] < 0.75 * losses["first_loss"]
    tuned = training.reinforce(
        str(tmp_path / "sft"),
        data,
        tmp_path / "grpo",
        steps=3,
        batch=4,
        lora=4,
        seed=0,
        new_tokens=24,
        learning_rate=0.1,
    )
    assert 0 <= tuned["last_reward"] <= 2
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("sft", "grpo")]
    assert weights[0] != weights[1]
    enhancer.NEW_TOKENS = 16
    better = load_enhancer(Enhancer(backend=str(tmp_path / "grpo")))
    assert better("a cat") == better("a cat")


@pytest.mark.parametrize(
    ("steps", "rate", "message"), [(1, 1e39, "step 1: weights are not"), (3, 1e30, "step 2: loss .* norm nan")]
)
def test_a_loss_or_an_update_that_is_not_finite_stops_and_writes_no_model(
    tiny: Path, tmp_path: Path, steps: int, rate: float, message: str
):
    from flywheel.remedies import enhancer_training as training

    write(tmp_path, [], FINE, [Prompt("p", "unrelated evaluation", "t2i", (), ())], {}, count=6, seed=0)
    options = {"steps": steps, "batch": 2, "lora": 0, "seed": 0, "learning_rate": rate}
    with pytest.raises(UsageError, match=message):
        training.fine_tune(str(tiny), tmp_path / "train.jsonl", tmp_path / "sft", **options)
    assert not list((tmp_path / "sft").glob("*.safetensors"))


def test_killed_in_each_step_and_run_again_it_is_the_same_model(tiny: Path, tmp_path: Path):
    """Killed when all is trained and nothing of it saved, which leaves the most behind."""
    from flywheel.remedies import enhancer_training as training

    write(tmp_path, [], FINE, [Prompt("p", "unrelated evaluation", "t2i", (), ())], {}, count=6, seed=0)
    options = {"steps": 2, "batch": 2, "seed": 0}

    def fine_tune(folder: Path) -> Path:
        def train(unfinished: Path) -> object:
            return training.fine_tune(str(tiny), tmp_path / "train.jsonl", unfinished, lora=0, **options)

        return whole_folder(folder, train)

    def reinforce(folder: Path) -> Path:
        def train(unfinished: Path) -> object:
            start, data = str(tmp_path / "whole-sft"), tmp_path / "train.jsonl"
            return training.reinforce(start, data, unfinished, lora=4, new_tokens=8, **options)

        return whole_folder(folder, train)

    class Killed(BaseException):
        """Nothing handles it: the disk is as after a SIGKILL."""

    def kill(*_: object) -> None:
        raise Killed

    for step, name in ((fine_tune, "sft"), (reinforce, "grpo")):
        whole, again = tmp_path / f"whole-{name}", tmp_path / f"again-{name}"
        step(whole)
        with patch.object(training, "_save", kill), pytest.raises(Killed):
            step(again)
        assert not again.exists() and (tmp_path / f".again-{name}.tmp").exists()
        step(again)
        files = sorted(p.name for p in whole.iterdir() if p.is_file())
        assert files == sorted(p.name for p in again.iterdir() if p.is_file())
        weights = [p for p in files if p.endswith(".safetensors")]
        assert weights and all((whole / p).read_bytes() == (again / p).read_bytes() for p in weights)


def test_pictures_of_a_frozen_checkpoint_are_a_reward(one_step: Path, tmp_path: Path):
    from flywheel.remedies.enhancer_training import Drawn

    checks = [{"verifier": "object", "capability": "object", "shape": s} for s in ("circle", "star")]
    row = {"prompt_id": "a", "prompt": "a red circle on the left, soft light", "task": "t2i", "checks": checks}
    edit = row | {"prompt_id": "b", "task": "ti2i", "references": ["r.png"]}
    drawn = Drawn(one_step, write_rows(tmp_path / "prompts.jsonl", [row, edit]), 32)
    (asked,) = drawn.rows()  # an edit cannot be drawn without its reference
    assert asked["short"] != row["prompt"] and json.loads(asked["checks"]) == checks
    answers = [answer("r", row["prompt"]), "no reasoning", answer("r", "x")]
    rewards = drawn(answers, [asked["checks"], asked["checks"], ""])
    assert all(0 <= r <= 1 for r in rewards[:2]) and rewards[2] is None
    assert rewards == drawn(answers, [asked["checks"], asked["checks"], ""])


def test_rewards_know_kept_and_invented_text_and_form():
    from flywheel.remedies.enhancer_training import form_reward, text_reward

    kept = answer("r", 'a sign that says "OPEN" at night')
    lost, invented = answer("r", "a sign at night"), answer("r", 'a sign "OPEN" and "SHUT"')
    short = ['a sign "OPEN"'] * 3
    assert text_reward([kept, lost, invented], short) == [1.0, 0.0, 0.5]
    assert form_reward([kept, "a sign"], short[:2]) == [1.0, pytest.approx((1 + 2 / 3) / 3)]
