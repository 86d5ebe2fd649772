"""Fixtures of the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray of two CPUs for every test that asks: starting it costs seconds."""
    from curation.cluster import cluster

    with cluster(2):
        yield


@pytest.fixture
def photos() -> Path:
    """Folder of real photographs with captions.jsonl; the test is skipped where it is missing."""
    if not PHOTOS.is_dir():
        pytest.skip(f"no photographs at {PHOTOS}")
    return PHOTOS
