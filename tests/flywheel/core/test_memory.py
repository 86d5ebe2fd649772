"""Peak memory of a process and its children."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from flywheel.core.memory import PeakMemory

MIB = 2**20


def test_the_peak_outlives_what_was_freed() -> None:
    with PeakMemory(every=0.02) as memory:
        start = memory.peak
        data = bytearray(64 * MIB)
        time.sleep(0.2)
        del data
        time.sleep(0.1)
    with PeakMemory() as after:
        pass
    assert start == 0 and memory.peak > after.peak + 40 * MIB


@pytest.mark.slow
def test_children_count() -> None:
    with PeakMemory(every=60) as alone:
        pass
    hold = f"b = bytearray({64 * MIB}); print(1, flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold], **pipes) as child:
        child.stdout.readline()
        with PeakMemory(every=60) as both:
            pass
        child.communicate(b"\n")
    assert both.peak > alone.peak + 60 * MIB
