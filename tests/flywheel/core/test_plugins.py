"""Entry points of installed packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.plugins import names, plugins


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with a scorer that loads, and one that does not."""
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    points = "[test.good]\nbright = mine_scorer:NAME\n[test.bad]\ndark = mine_scorer:NOTHING\n"
    (info / "entry_points.txt").write_text(points)
    (tmp_path / "mine_scorer.py").write_text("NAME = 'bright'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("mine_scorer", None)


def test_what_a_package_declares_is_loaded(installed: None) -> None:
    assert names("test.good") == {"bright": "mine_scorer:NAME"} and plugins("test.good") == {"bright": "bright"}
    assert names("test.none") == plugins("test.none") == {}


def test_what_cannot_be_loaded_is_named_without_loading_it(installed: None) -> None:
    assert names("test.bad") == {"dark": "mine_scorer:NOTHING"}
    with pytest.raises(UsageError, match=r"entry point dark = mine_scorer:NOTHING of test.bad cannot be imported"):
        plugins("test.bad")
