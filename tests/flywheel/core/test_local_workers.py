"""Local worker processes: every call has one result, whatever its process does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pytest

from flywheel.core import local_workers
from flywheel.core.errors import UsageError
from flywheel.core.local_workers import LocalWorkers, shared_object
from tests.processes import running

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


def test_processes_have_what_they_share_and_the_environment_of_now(monkeypatch: pytest.MonkeyPatch):
    forkserver._forkserver._stop()  # of an earlier test
    monkeypatch.setenv("FIRST", "1")
    for name, other in (("FIRST", "SECOND"), ("SECOND", "FIRST")):
        workers = LocalWorkers(1, "curation.ready")
        assert [v for _, v in workers.run_all(os.getenv, [(name,), (other,)])] == ["1", None]
        assert list(workers.run_all(loaded, [("curation.scorers.scoring",)])) == [(0, True)]
        workers.close()
        monkeypatch.delenv("FIRST", raising=False)
        monkeypatch.setenv("SECOND", "1")


def loaded(module: str) -> bool:
    return module in sys.modules


class Counter:
    def __init__(self, start: int) -> None:
        self.count = start

    def add(self, n: int) -> int:
        self.count += n
        return self.count


def added(counter: Counter, n: int) -> int:
    return counter.add(n)


def test_workers_share_an_object(workers: LocalWorkers):
    with shared_object(Counter, 10) as counter:
        dict(workers.run_all(added, [(counter, n) for n in range(5)]))
        assert counter.add(0) == 20


def test_a_process_that_dies_costs_its_own_call_after_a_second_try(workers: LocalWorkers, tmp_path: Path):
    results = dict(workers.run_all(dies, [(str(tmp_path), n) for n in range(6)]))
    assert {n: r for n, r in results.items() if n != 1} == {0: 0, 2: 2, 3: 3, 4: 4, 5: 5}
    assert isinstance(results[1], Exception)


def test_a_process_that_dies_between_calls_costs_nothing():
    workers = LocalWorkers(1)
    ((_, first),) = workers.run_all(os.getpid, [()])
    psutil.Process(first).kill()
    workers._pools[0]._executor_manager_thread.join(30)  # it has seen that the process is gone
    ((_, second),) = workers.run_all(os.getpid, [()])
    assert second not in (first, os.getpid())
    workers.close()


def test_the_process_that_others_are_forked_from_may_be_killed_as_one_starts():
    list(LocalWorkers(1).run_all(os.getpid, [()]))
    server = psutil.Process(forkserver._forkserver._forkserver_pid)
    server.suspend()  # busy, as when it loads
    killing = threading.Timer(0.3, server.kill)
    killing.start()
    ((_, result),) = LocalWorkers(1).run_all(os.getpid, [()])
    killing.join()
    assert result != os.getpid() and forkserver._forkserver._forkserver_pid != server.pid


def test_more_workers_than_there_are_calls_or_files_to_open_for_them(monkeypatch: pytest.MonkeyPatch):
    many = LocalWorkers(100_000)
    assert len({pid for _, pid in many.run_all(os.getpid, [()] * 2)}) <= 2 == len(many._pools)
    many.close()
    monkeypatch.setattr(local_workers.resource, "getrlimit", lambda _: (256, 1024))
    one = LocalWorkers(128)
    assert list(one.run_all(os.getpid, [()] * 3)) and len(one._pools) == 1
    one.close()


def ends(_: object) -> None:
    os._exit(1)


def test_processes_that_never_start_are_no_fault_of_a_call(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_workers, "_begin", ends)
    workers = LocalWorkers(1)
    with pytest.raises(UsageError, match="end as soon as they start"):
        list(workers.run_all(os.getpid, [()]))
    workers.kill()


class OddError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)  # one argument: cannot be unpickled


def odd(kind: str) -> None:
    match kind:
        case "thread":
            threading.Thread(target=time.sleep, args=(600,)).start()
        case "prints":
            print("printed")
        case "exits":
            sys.exit(3)
        case "unpicklable":
            raise OddError("said", " so")


def test_what_calls_do_to_their_process_stays_there(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    forkserver._forkserver._stop()  # the next one has this test's standard error
    workers = LocalWorkers(2)
    monkeypatch.setattr(local_workers, "_END_SECONDS", 0.5)
    (exited,) = workers.run_all(odd, [("exits",)])
    assert isinstance(exited[1], Exception)
    with pytest.raises(RuntimeError, match="OddError: said so"):
        list(workers.run_all(odd, [("unpicklable",)]))
    list(workers.run_all(odd, [("prints",), ("thread",)]))
    begun = time.monotonic()
    workers.close()
    assert time.monotonic() - begun < 30 and capfd.readouterr() == ("", "printed\n")


@pytest.mark.parametrize("how", ["file", "standard input"])
def test_a_script_runs_once_whether_or_not_it_has_a_main_guard(how: str, tmp_path: Path):
    program = (
        "from flywheel.core.local_workers import LocalWorkers, shared_object\n"
        "print('begins', flush=True)\nworkers = LocalWorkers(1)\n"
        "print(list(workers.run_all(abs, [(-3,)])), __spec__)\n"
        "with shared_object(list) as shared:\n    print('shared')\nworkers.close()\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    command = [sys.executable, str(script) if how == "file" else "-"]
    done = subprocess.run(
        command, input=program, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("begins\n[(0, 3)] None\nshared\n", "")


def test_no_process_outlives_a_killed_program(tmp_path: Path):
    program = (
        "import os, time\nfrom flywheel.core.local_workers import LocalWorkers\n"
        "if __name__ == '__main__':\n"
        "    workers = LocalWorkers(1)\n"  # without a name, its process ends with the call
        "    print(list(workers.run_all(os.getpid, [()]))[0][1], flush=True)\n    time.sleep(600)"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    started = subprocess.Popen(
        [sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    worker = psutil.Process(int(started.stdout.readline()))
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert not running([worker], after=30)
