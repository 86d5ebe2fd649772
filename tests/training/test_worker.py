"""Training in a process of its own: how its failure reaches who started it."""

from pathlib import Path

import psutil
import pytest

from flywheel.core.errors import UsageError
from tests.training.snapshots import card_rows, write_snapshot
from tests.training.tiny_runs import TINY
from training.checkpoint import Checkpoint, read_metrics
from training.rewards import RewardsLost
from training.worker import Job, TrainingRun, train_all, train_job


def test_a_failure_brings_its_traceback_along_and_prints_none(snapshot: Path, tmp_path: Path, capfd):
    (tmp_path / "file").touch()
    mix = [{"manifest": str(snapshot), "slice": "base", "share": 1.0}]
    run = TrainingRun(out_dir=str(tmp_path / "file" / "run"), sources=mix, recipe=TINY.to_dict(), seed=0, steps=1)
    with pytest.raises(RuntimeError, match="training failed: .*Not a directory") as caught:
        train_all([run])
    assert "Traceback" in caught.value.__notes__[0] and "Traceback" not in capfd.readouterr().err


def loses(**_: object) -> None:
    raise RewardsLost("nobody scores")


def test_what_stops_a_job_keeps_its_kind(tmp_path: Path):
    """So that a round tells rewards that are lost from nothing to learn."""
    job = Job(call="tests.training.test_worker:loses", out_dir=str(tmp_path), steps=1, arguments={})
    with pytest.raises(RewardsLost, match="^nobody scores$"):
        train_job(job)


def test_a_process_that_the_system_kills_is_one_sentence(snapshot: Path, tmp_path: Path):
    """One of two that train a model: the other ends with it, and the run goes on later."""
    mix = [{"manifest": str(snapshot), "slice": "base", "share": 1.0}]
    run = TrainingRun(out_dir=str(tmp_path / "run"), sources=mix, recipe=TINY.to_dict(), seed=0, steps=2)

    def workers() -> list[psutil.Process]:
        return [p for p in psutil.Process().children() if "training.worker" in p.cmdline()]

    def kill(*_: object) -> None:
        assert len(workers()) == 2
        workers()[-1].kill()

    with pytest.raises(UsageError, match=r"ended by SIGKILL; .*memory is short: run again"):
        train_all([run], processes=2, progress=kill)
    assert not workers()
    (path,) = train_all([run], processes=2)
    assert Checkpoint(path).step == 2
    assert [line["step"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [1, 2]


def test_what_runs_have_to_say_is_heard_once(tmp_path: Path, capfd):
    texts_alone = write_snapshot(tmp_path, [{"rows": card_rows(40)}])
    mix = [{"manifest": str(texts_alone), "slice": "base", "share": 1.0}]
    runs = [
        TrainingRun(out_dir=str(tmp_path / name), sources=mix, recipe=TINY.to_dict(), seed=0, steps=2) for name in "ab"
    ]
    said: list[str] = []
    train_all(runs, say=said.append)
    assert [line for line in said if "ti2i" in line] == [
        "S2: bucket 64 has no ti2i rows: their share 0.1 goes elsewhere"
    ]
    assert "goes elsewhere" not in capfd.readouterr().err
