"""The one TOML reader."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from flywheel.core.config import read_toml
from flywheel.core.errors import UsageError


def test_files_and_files_of_packages_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[x]\ny = 1\n")
    assert read_toml(tmp_path / "a.toml") == {"x": {"y": 1}}
    assert "policy" in read_toml(resources.files("flywheel.presets") / "tiny.toml")


@pytest.mark.parametrize(("content", "told"), [(None, "No such file"), (b"a = \n", "line 1"), (b"\xff = 1", "utf-8")])
def test_what_cannot_be_read_names_the_file(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"a.toml.*{told}"):
        read_toml(path)
