"""A small CLIP on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.curation.corpus import write_tiny_clip


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP with random weights, as a checkpoint on disk: for how weights are loaded, not for what they say."""
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))
