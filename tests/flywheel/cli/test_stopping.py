"""Ctrl-C and SIGTERM while Ray, local processes or training work: a sentence, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context, resource_tracker
from pathlib import Path

import psutil
import pytest

from flywheel.cli.stopping import Stop
from flywheel.core.workspace import Workspace
from flywheel.demo.world import write_world
from flywheel.rounds.live import ask_to_stop
from tests.flywheel.micro import PRESET
from tests.processes import running

# What is run, and what must be among the processes, how often, before it is stopped: of local workers one beside the
# process that they are forked from.
WAYS = {
    "curate": ("curate --source {source} -w {work} --policy demo --workers 2", "forkserver", 2),
    "run": ("run --source {source} -w {work} --preset {preset} --workers 2 --no-prefect", "forkserver", 2),
    "synthesise": ("synthesise text --style slide --output {work} --count 4000 --workers 2", "ray::", 1),
    "Prefect": ("run --source {source} -w {work} --preset {preset} --workers 2 --prefect", "flows.server_process", 1),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "source"
    write_world(folder, seed=0, size="quick")
    return folder


def descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def commands(processes: list[psutil.Process]) -> str:
    lines = []
    for process in processes:
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "signum", "group"),
    [
        ("curate", signal.SIGINT, True),
        ("synthesise", signal.SIGTERM, False),
        ("run", None, False),
        ("Prefect", signal.SIGTERM, True),
    ],
)
def test_a_signal_ends_the_command_and_all_that_it_started(
    source: Path, tmp_path: Path, way: str, signum: signal.Signals | None, group: bool
):
    """group: to every process of the terminal, as Ctrl-C goes; else to the command alone, as from a supervisor.

    signum: None: none is sent, but somebody asks the run to stop, as the dashboard does.
    """
    line, awaited, least = WAYS[way]
    arguments = line.format(source=source, work=tmp_path / "w", preset=PRESET).split()
    command = subprocess.Popen(
        [sys.executable, "-m", "flywheel.cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    process, seen = psutil.Process(command.pid), set[psutil.Process]()
    deadline = time.monotonic() + 240
    while sum(awaited in c for c in commands(descendants(process)).splitlines()) < least:
        seen |= set(descendants(process))
        assert command.poll() is None and time.monotonic() < deadline, command.stderr.read()
        time.sleep(0.1)
    seen |= set(descendants(process))
    if signum:
        (os.killpg if group else os.kill)(command.pid, signum)
    else:
        ask_to_stop(Workspace(tmp_path / "w"), by="ada", why="the disk is needed")
    errors = command.communicate()[1]
    assert command.returncode == 128 + (signum or signal.SIGINT) and "Traceback" not in errors
    assert "stopped by" in errors.splitlines()[-1] and "the same command resumes" in errors.splitlines()[-1]
    assert seen and not running(seen, after=5)


def test_an_exception_that_comes_again_while_the_program_ends_is_none():
    stop = Stop()
    stop.signum, stop.lost = signal.SIGTERM, True
    with pytest.raises(KeyboardInterrupt):
        stop(signal.SIGTERM, None)
    stop.lost = stop.ending = True
    assert stop(signal.SIGTERM, None) is None


def test_the_counter_of_semaphores_is_left_to_end_by_itself():
    lock = get_context("spawn").Lock()
    tracker, stop = resource_tracker._resource_tracker._pid, Stop()
    stop._look()
    assert tracker not in {p.pid for p in stop.processes}
    stop._look(tracker=True)  # by whoever ends at once
    assert tracker in {p.pid for p in stop.processes} and lock is not None


EARLY = """
import os, sys
module, signum = sys.argv[1], int(sys.argv[2])
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signum)
sys.meta_path.insert(0, Interrupting())
from flywheel.cli.__main__ import main
sys.argv[1:] = ["doctor", "--help"]
main()
"""


@pytest.mark.parametrize("module", ["flywheel.cli.main", "typer", "flywheel.cli.curation"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_command_is_being_imported(module: str, signum: signal.Signals):
    out = subprocess.run([sys.executable, "-c", EARLY, module, str(int(signum))], capture_output=True, text=True)
    assert out.returncode == 128 + signum and "Traceback" not in out.stderr, out.stderr
    assert out.stderr.splitlines()[-1].startswith("stopped by ")


def test_a_signal_before_anything_is_started(tmp_path: Path):
    script = "import os, signal; from flywheel.cli import main as m; m._require_local_output = lambda a: None\n"
    script += "import sys, flywheel.cli.analysts as a, typer\n"
    script += "m.PanelGroup.get_command = m.PanelGroup.__mro__[1].get_command\n"  # a verb without a panel
    script += "m.app.command('wait')(lambda: os.kill(os.getpid(), int(os.environ['SIGNUM'])))\n"
    script += "sys.argv = ['flywheel', 'wait']; m.main()"
    for signum, name in ((signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")):
        environment = os.environ | {"SIGNUM": str(int(signum))}
        out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert out.returncode == 128 + signum and out.stderr.startswith(f"stopped by {name}: finished work is kept")
        ignored = subprocess.run(
            ["sh", "-c", f'trap "" {int(signum)}; exec "$@"', "sh", sys.executable, "-c", script],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert ignored.returncode == 0 and not ignored.stderr  # as under nohup


DROPPED = """
import os, signal, time, weakref
from flywheel.cli.stopping import stoppable

class Thing: pass

def callback(_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)  # the handler raises here, where Python drops it

with stoppable():
    thing = Thing()
    held = weakref.ref(thing, callback)
    del thing
    time.sleep(30)
"""


def test_a_signal_amid_a_callback_whose_exceptions_are_dropped_is_not_lost() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, timeout=60)
    assert done.returncode == 143 and time.monotonic() - began < 20
    assert done.stderr == "stopped by SIGTERM: finished work is kept, the same command resumes\n"
