"""What every training loop shares, with a loop that only counts."""

from __future__ import annotations

import json

import pytest
import torch

from flywheel.core.errors import UsageError
from training import run
from training.checkpoint import FORMAT, read_metrics
from training.run import due, finished, last_checkpoint, step_name, take_steps
from training.saving import write


class Counter:
    """A loop that counts its steps."""

    def __init__(self, done: int = 0):
        self.done = done

    def one_step(self):
        self.done += 1
        return {"step": self.done, "loss": 1 / self.done}


def saved(folder, name: str, of: str = "mine") -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "config.json").write_text(json.dumps({"run": of, "format": FORMAT}))


def test_steps_are_logged_reported_and_saved_except_the_last(tmp_path):
    told, kept = [], []

    def save(name: str):
        kept.append(name)
        return lambda: saved(tmp_path, name)

    take_steps(Counter(), tmp_path, 8, save, checkpoint_every=2, progress=lambda *a: told.append(a[:2]))
    assert kept == [step_name(n) for n in (2, 4, 6)]  # the caller writes the final one
    assert sorted(p.name for p in tmp_path.glob("step-*")) == kept[-2:]
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 9)) and all("cpu_seconds" in line for line in lines)
    assert told == [(n, 8) for n in range(1, 9)]


def test_a_resumed_loop_forgets_what_it_logged_after_its_checkpoint(tmp_path):
    take_steps(Counter(), tmp_path, 5, lambda name: None, checkpoint_every=0, progress=None)
    take_steps(Counter(3), tmp_path, 4, lambda name: None, checkpoint_every=0, progress=None)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_run_finds_its_own_checkpoints_and_refuses_those_of_others(tmp_path):
    assert finished(tmp_path, "mine") is last_checkpoint(tmp_path, "mine") is None
    for step in (2, 10):
        saved(tmp_path, step_name(step))
    saved(tmp_path, "final")
    latest, final = last_checkpoint(tmp_path, "mine"), finished(tmp_path, "mine")
    assert latest is not None and latest.path.name == step_name(10)
    assert final is not None and final.path.name == "final"
    for look in (finished, last_checkpoint):
        with pytest.raises(UsageError, match=f"belongs to another run .* remove {tmp_path} to train anew"):
            look(tmp_path, "theirs")


def test_what_happens_every_n_steps():
    assert [n for n in range(1, 10) if due(3, n)] == [3, 6, 9] and not due(0, 3)
    assert run.cpu_seconds(0.0) > 0


def test_what_an_upload_left_half_done_counts_as_absent_and_is_replaced(tmp_path):
    """As a run finds it that was killed while its folder went to S3: `config.json` is written last."""
    saved(tmp_path, step_name(2))
    for name in ("final", step_name(4)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ema.safetensors").write_bytes(b"half")
    assert finished(tmp_path, "mine") is None
    assert last_checkpoint(tmp_path, "mine").path.name == step_name(2)
    write(tmp_path / "final", {"model": {"a": torch.zeros(2)}}, None, {"run": "mine"})
    found = finished(tmp_path, "mine")
    assert found is not None and found.config["files"].keys() == {"model.safetensors"}
    assert {p.name for p in found.path.iterdir() if p.is_file()} == {"config.json", "model.safetensors"}
