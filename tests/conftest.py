"""Fixtures of the whole suite."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import faulty_s3

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"


@pytest.fixture(scope="session")
def ray_session(s3_server: tuple[str, int]) -> Iterator[None]:
    """One local Ray of two CPUs for every test that asks: starting it costs seconds. Its workers see the S3 server."""
    from flywheel.core.cluster import cluster

    with cluster(2):
        yield


@pytest.fixture
def photos() -> Path:
    """Folder of real photographs with captions.jsonl; the test is skipped where it is missing."""
    if not PHOTOS.is_dir():
        pytest.skip(f"no photographs at {PHOTOS}")
    return PHOTOS


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, int]]:
    """Host and port of an S3 server, which AWS's environment variables name as long as the session lasts."""
    pytest.importorskip("moto.server")
    with faulty_s3.s3_server() as (host, port), pytest.MonkeyPatch.context() as patch:
        for name, value in faulty_s3.environment(f"http://{host}:{port}").items():
            patch.setenv(name, value)
        yield host, port


@pytest.fixture
def s3(s3_server: tuple[str, int]) -> Iterator[str]:
    """Address of a new bucket; its local copies go with it."""
    from flywheel.core.mirror import mirror

    address = faulty_s3.make_bucket(*s3_server, f"bucket-{uuid.uuid4().hex[:12]}")
    yield address
    shutil.rmtree(mirror(address), ignore_errors=True)
