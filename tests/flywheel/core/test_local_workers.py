"""Local worker processes: every call has one result, whatever its process does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flywheel.core.local_workers import LocalWorkers

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]


def doubled(n: int) -> int:
    if n == 3:
        raise ValueError("three")
    return 2 * n


def dies(folder: str, n: int) -> int:
    """Call 1 ends its process each time, call 2 the first time only."""
    if n == 1:
        os._exit(1)
    if n == 2:
        mark = Path(folder) / "died"
        if not mark.exists():
            mark.touch()
            os._exit(1)
    return n


@pytest.fixture
def workers():
    opened = LocalWorkers(2)
    yield opened
    opened.close()


def test_each_call_has_its_result_and_an_error_is_raised(workers: LocalWorkers):
    assert sorted(workers.run_all(doubled, [(n,) for n in (1, 2, 5, 7)])) == [(0, 2), (1, 4), (2, 10), (3, 14)]
    assert list(workers.run_all(doubled, [])) == []
    with pytest.raises(ValueError, match="three"):
        list(workers.run_all(doubled, [(3,)]))
    assert list(workers.run_all(os.getenv, [("OMP_NUM_THREADS",)])) == [(0, "1")]


def test_a_process_that_dies_costs_its_own_call_after_a_second_try(workers: LocalWorkers, tmp_path: Path):
    results = dict(workers.run_all(dies, [(str(tmp_path), n) for n in range(6)]))
    assert {n: r for n, r in results.items() if n != 1} == {0: 0, 2: 2, 3: 3, 4: 4, 5: 5}
    assert isinstance(results[1], Exception)


def test_no_process_outlives_a_killed_program(tmp_path: Path):
    program = (
        "import os, time\nfrom flywheel.core.local_workers import LocalWorkers\n"
        "if __name__ == '__main__':\n"
        "    print(list(LocalWorkers(1).run_all(os.getpid, [()]))[0][1], flush=True)\n    time.sleep(600)"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    started = subprocess.Popen(
        [sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    worker = psutil.Process(int(started.stdout.readline()))
    started.send_signal(signal.SIGKILL)
    started.wait()
    deadline = time.monotonic() + 30
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)
