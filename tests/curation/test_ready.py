"""What worker processes have in common is what they are slow to load, and starts no thread that a fork would lose."""

from __future__ import annotations

import subprocess
import sys


def test_it_loads_what_scoring_needs_and_starts_no_thread() -> None:
    code = """
import curation.ready, os, sys
threads = [open(f"/proc/self/task/{t}/comm").read().strip() for t in os.listdir("/proc/self/task")]
print(sum(name != "jemalloc_bg_thd" for name in threads), os.environ["OMP_NUM_THREADS"])
print(*(name in sys.modules for name in ("curation.scorers.scoring", "curation.shards.rows", "cv2", "pandas")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1 1", "True True True True"]
