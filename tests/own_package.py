"""The package of `docs/plug-in.md`, installed for a test: its Python blocks as one module, and its entry points."""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "plug-in.md"


def blocks(kind: str) -> list[str]:
    """The code blocks of a kind on the page."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the package into `folder` and put it on the path; returns the trainer's script."""
    modules = [b for b in blocks("python") if not b.startswith("# train_painter.py")]
    (folder / "my_plugins.py").write_text("\n\n".join(modules))
    (script,) = (b for b in blocks("python") if b.startswith("# train_painter.py"))
    (folder / "train_painter.py").write_text(script)
    declared = configparser.ConfigParser()
    declared.read_string(blocks("ini")[0])
    info = folder / "my_plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugins\nVersion: 1.0\n")
    points = [f"[{group}]\n{body.strip()}\n" for group, body in declared["options.entry_points"].items()]
    (info / "entry_points.txt").write_text("\n".join(points))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "my_plugins", raising=False)
    forget()
    from curation.scorers import SCORERS

    monkeypatch.setitem(SCORERS, "mean_color", "my_plugins:MeanColor")  # read at import, before the package was there
    return folder / "train_painter.py"


def forget() -> None:
    """Drop what is remembered of installed packages."""
    from curation.verify.checks import verifiers
    from flywheel.core.plugins import names, plugins

    for cached in (names, plugins, verifiers):
        cached.cache_clear()
