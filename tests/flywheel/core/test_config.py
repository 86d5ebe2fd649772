"""The one TOML reader."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from flywheel.core.config import Lines, merged, read_toml
from flywheel.core.errors import UsageError


def test_files_and_files_of_packages_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[x]\ny = 1\n")
    assert read_toml(tmp_path / "a.toml") == {"x": {"y": 1}}
    assert "policy" in read_toml(resources.files("flywheel.presets") / "tiny.toml")


@pytest.mark.parametrize(
    ("content", "told"), [(None, "No such file"), (b"a = \n", "line 1"), (b"\xff = 1", "it is not UTF-8")]
)
def test_what_cannot_be_read_names_the_file(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"a.toml.*{told}"):
        read_toml(path)


TEXT = """\
base = "x"

[a]
one = 1
"quoted" = 2

[a.b.c]
deep = 1
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("base",), 1),
        (("a", "one"), 4),
        (("a", "quoted"), 5),
        (("a", "missing"), 3),
        (("a", "b", "c", "deep"), 8),
        (("a", "b", "c", "missing", "more"), 7),
        (("z",), None),
        ((), None),
    ],
)
def test_lines_of_keys_and_of_what_is_nearest(path: tuple[str, ...], line: int | None) -> None:
    assert Lines(TEXT).at(path) == line
    assert Lines("[q.r]\n").at(("q",)) == 1  # a table that only its parts name


def test_changes_reach_every_depth() -> None:
    base = {"a": {"b": {"x": 1, "y": 2}, "c": 3}, "d": 4}
    assert merged(base, {"a": {"b": {"y": 5}, "e": 6}}) == {"a": {"b": {"x": 1, "y": 5}, "c": 3, "e": 6}, "d": 4}
    assert merged(base, {"a": 7}) == {"a": 7, "d": 4} and base["a"]["b"]["y"] == 2


def test_a_line_ends_at_a_newline_only() -> None:
    """Other separators, as in texts that were copied from web pages, shift no line of a fault."""
    lines = Lines('# one\u2028two\x85three\x0cfour\r\n[table]\r\nkey = "a\u2029b"\r\nlast = 1\r\n')
    assert [lines.at(("table", key)) for key in ("key", "last")] == [3, 4]
