"""A folder of images, and the checkpoint that training tests start from."""

from pathlib import Path

import pytest

from tests.training.conftest import snapshot, start, trained  # noqa: F401 - fixtures


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (300, 300), "red").save(folder / "a.png")
    return folder
