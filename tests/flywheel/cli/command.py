"""The command as a shell calls it, in this process; `test_main.py` starts real ones."""

from __future__ import annotations

import io
import subprocess
import traceback
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

from flywheel.cli.main import main


def flywheel(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Exit code and output of the command."""
    command, code = ["flywheel", *map(str, arguments)], 0
    with patch("sys.argv", command), redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as said:
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except Exception:  # noqa: BLE001 - printed, as Python does at the end of a program
            traceback.print_exc()
            code = 1
    return subprocess.CompletedProcess(command, code, out.getvalue(), said.getvalue())


def wrong(*arguments: object) -> str:
    """What the command says when it refuses."""
    out = flywheel(*arguments)
    assert out.returncode == 2, out.stderr
    assert "Traceback" not in out.stderr
    return out.stderr
