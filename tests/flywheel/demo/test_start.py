"""The shipped checkpoint: whole, small, and only for the world whose held-out prompts are new to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.files import file_digest
from flywheel.demo import start
from training.sampling import Sampler


def test_the_shipped_checkpoint_draws_and_is_small():
    folder = start.checkpoint(seed=start.SEED)
    assert sum(p.stat().st_size for p in folder.iterdir()) < 6_000_000
    assert Sampler(folder).sample(["a red disc"], size=(64, 64), steps=1).shape == (1, 64, 64, 3)
    assert start.checkpoint(seed=start.SEED + 1) is None


def test_a_damaged_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(start, "FOLDER", tmp_path)
    with pytest.raises(UsageError, match="missing or damaged: install the package again"):
        start.checkpoint(seed=start.SEED)
    (tmp_path / "ema.safetensors").write_bytes(b"weights")
    with pytest.raises(UsageError, match="missing or damaged"):
        start.checkpoint(seed=start.SEED)
    assert file_digest(tmp_path / "ema.safetensors") != start.SHA256
