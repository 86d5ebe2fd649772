"""Progress in a file and on a terminal."""

from __future__ import annotations

import io
import re

import pytest

from flywheel.core.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_whole_lines() -> None:
    stream = io.StringIO()
    progress = Progress(stream, every=0)
    with progress.step("score"):
        progress(1, 4, "shards scored")
        progress(7)
    progress.say("done")
    lines = [re.sub(r"^\[\d\d:\d\d\] ", "", line) for line in stream.getvalue().splitlines()]
    assert lines[0] == "score …" and lines[1] == f"score 1/4 {'█' * 5}{'░' * 15} shards scored"
    assert lines[2] == "score 7" and re.fullmatch(r"score: \d+\.\d s", lines[3]) and lines[4] == "done"


def test_a_terminals_bar_is_redrawn_and_what_stays_ends_its_line() -> None:
    stream = Terminal()
    progress = Progress(stream)
    with progress.step("score"):
        progress._last = 0.0  # long ago
        progress(5, 4)
    text = stream.getvalue()
    assert text.count("\r\x1b[K") == 3 and text.count("\n") == 1 and "█" * 20 in text


def test_a_file_is_not_flooded() -> None:
    stream = io.StringIO()
    progress = Progress(stream, every=60)
    with progress.step("train"):
        for n in range(100):
            progress(n, 100)
    assert len(stream.getvalue().splitlines()) == 2


def test_a_step_that_fails_is_not_said_to_have_ended() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="broken"), Progress(stream).step("train"):
        raise ValueError("broken")
    assert len(stream.getvalue().splitlines()) == 1
