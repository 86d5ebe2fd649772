"""Progress in a file and on a terminal."""

from __future__ import annotations

import io
import json
import re
import time

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


def test_a_bar_says_how_long_is_left_at_the_rate_that_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now, stream = [0.0], io.StringIO()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress(stream, every=0)
    with progress.step("score"):
        for at, done in ((10, 500), (20, 550), (30, 600)):  # a resumed step: the first 500 took no time
            now[0] = at
            progress(done, 1000, "shards")
        now[0] = 31
        progress(1, 40, "files")  # another count of the same step: its own rate
        now[0] = 3631
        progress(2, 40, "files")
    told = [line.rpartition(", ")[2] for line in stream.getvalue().splitlines() if line.endswith(" left")]
    assert told == ["2 min left", "80 s left", "38.0 h left"]


def test_json_lines_for_log_collectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_LOG_FORMAT", "json")
    stream = Terminal()
    progress = Progress(stream, every=0)
    with progress.step("score"):
        progress(1, 4, "shards")
        progress.say("half")
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [r["event"] for r in rows] == ["begin", "progress", "message", "end"]
    assert {r["step"] for r in rows} == {"score"} and all("at" in r for r in rows)
    assert (rows[1]["done"], rows[1]["total"], rows[1]["note"], rows[2]["text"]) == (1, 4, "shards", "half")
    assert rows[3]["seconds"] >= 0 and "\x1b" not in stream.getvalue()


def test_a_listener_hears_what_stays() -> None:
    heard: list[str] = []
    progress = Progress(io.StringIO(), every=0)
    with progress.heard_by(heard.append), progress.step("score"):
        progress(1, 4)
        progress.say("half")
    progress.say("later")
    assert heard[0] == "half" and heard[1].startswith("score: ") and len(heard) == 2


def test_what_a_step_last_said_can_be_looked_at() -> None:
    progress = Progress(io.StringIO(), every=3600)  # prints nothing in between, and is looked at all the same
    with progress.step("train"):
        assert progress.told == {"step": "train", "done": None, "total": None, "note": "", "seconds_left": None}
        progress(1, 4, "loss 0.5")
        progress(2, 4, "loss 0.4")
        assert {k: progress.told[k] for k in ("step", "done", "total", "note")} == {
            "step": "train", "done": 2, "total": 4, "note": "loss 0.4",
        }  # fmt: skip
        assert progress.told["seconds_left"] is not None
    for n in range(20):
        progress.say(f"line {n}")
    assert len(progress.lines) == 12 and progress.lines[-1].endswith("line 19")
