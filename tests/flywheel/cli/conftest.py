"""A folder of images."""

from pathlib import Path

import pytest


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (300, 300), "red").save(folder / "a.png")
    return folder
