"""Fixtures of the whole suite."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"


@pytest.fixture(scope="session")
def ray_session(s3_server: tuple[str, int]) -> Iterator[None]:
    """One local Ray of two CPUs for every test that asks: starting it costs seconds. Its workers see the S3 server."""
    from curation.cluster import cluster

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
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    given = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        yield host, port
    server.stop()


@pytest.fixture
def s3(s3_server: tuple[str, int]) -> Iterator[str]:
    """Address of a new bucket; its local copies go with it."""
    from flywheel.mirror import mirror

    host, port = s3_server
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    urlopen(Request(f"http://{host}:{port}/{bucket}", method="PUT")).close()
    yield f"s3://{bucket}"
    shutil.rmtree(mirror(f"s3://{bucket}"), ignore_errors=True)
