"""Wrong usage ends in one sentence and exit code 2; help is quick and imports nothing heavy."""

import subprocess
import sys

from tests.flywheel.cli.command import flywheel


def test_help_lists_the_verbs_and_imports_nothing_heavy():
    out = flywheel("--help")
    assert out.returncode == 0
    verbs = ("demo", "run", "sql", "explain", "funnel", "what-if", "policy", "cases", "rounds", "report")
    assert all(verb in out.stdout for verb in verbs)
    heavy = ("ray", "torch", "prefect", "duckdb", "pyarrow", "numpy")
    code = f"import sys, flywheel.cli.main; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_full_disk_is_one_sentence():
    command = [sys.executable, "-m", "flywheel.cli", "policy", "show", "qwen-image-2"]
    with open("/dev/full", "w") as full:
        out = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert out.returncode == 2 and out.stderr.startswith("error: the disk is full ([Errno 28] No space left on device)")
    assert "Traceback" not in out.stderr
