"""Training in a process of its own: how its failure reaches who started it."""

from pathlib import Path

import psutil
import pytest

from flywheel.core.errors import UsageError
from tests.training.tiny_runs import TINY
from training.worker import TrainingRun, train_all


def test_a_failure_brings_its_traceback_along_and_prints_none(snapshot: Path, tmp_path: Path, capfd):
    (tmp_path / "file").touch()
    mix = [{"manifest": str(snapshot), "slice": "base", "share": 1.0}]
    run = TrainingRun(out_dir=str(tmp_path / "file" / "run"), sources=mix, recipe=TINY.to_dict(), seed=0, steps=1)
    with pytest.raises(RuntimeError, match="training failed: .*Not a directory") as caught:
        train_all([run])
    assert "Traceback" in caught.value.__notes__[0] and "Traceback" not in capfd.readouterr().err


def test_a_process_that_the_system_kills_is_one_sentence(snapshot: Path, tmp_path: Path):
    mix = [{"manifest": str(snapshot), "slice": "base", "share": 1.0}]
    run = TrainingRun(out_dir=str(tmp_path / "run"), sources=mix, recipe=TINY.to_dict(), seed=0, steps=1)

    def kill(*_: object) -> None:
        for process in psutil.Process().children():
            if "training.worker" in process.cmdline():
                process.kill()

    with pytest.raises(UsageError, match=r"ended by SIGKILL; .*memory is short: run again"):
        train_all([run], progress=kill)
