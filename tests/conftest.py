"""Fixtures of the whole suite."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks import faulty_s3

HERE = Path(__file__).parent
# A shell that starts the suite in the background makes it ignore Ctrl-C, and with it all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Several processes of tests share the cores: threads that spin while they wait would take them from each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# No test fetches weights, or reads those that this machine may have; what asks for them is refused at once.
os.environ["FLYWHEEL_WEIGHTS_MIRROR"] = "http://127.0.0.1:9"
os.environ["FLYWHEEL_WEIGHTS"] = "/nonexistent/weights"
PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"


@pytest.fixture(autouse=True)
def only_its_own_packages() -> Iterator[None]:
    """A package that a test installed (`tests.own_package`) is unknown to the next one."""
    yield
    if sys.modules.pop("my_plugins", None):
        from tests.own_package import forget

        forget()


# What takes more than the inner loop has: fixtures that start something, and folders whose tests train, draw or wait.
SLOW_FIXTURES = {
    "ray_session",
    "s3",
    "s3_server",
    "server",
    "server_process",
    "micro_run",
    "copied",
    "one_step",
    "red_pipeline",
}
SLOW_FOLDERS = (
    "flows", "training", "dashboards", "benchmarks", "curation/scorers", "curation/synthesis", "curation/test_run.py",
    "curation/sources/test_ingest.py", "flywheel/cli", "flywheel/operate", "flywheel/rounds/test_run", "test_docs.py",
    "flywheel/rounds/test_lease.py", "flywheel/core/test_workspace.py", "flywheel/core/test_cluster.py",
    "flywheel/core/test_environment.py", "flywheel/core/test_paths.py", "flywheel/remedies/test_enhancer_training.py",
    "flywheel/remedies/test_index.py", "flywheel/remedies/test_rewards.py", "flywheel/test_init.py",
    "flywheel/signals/test_vae_quality.py", "flywheel/remedies/test_data.py", "flywheel/demo", "curation/verify",
    "flywheel/catalog/test_lineage.py", "flywheel/rounds/test_routing.py", "flywheel/rounds/test_pictures.py",
    "flywheel/rounds/test_taken_in.py", "flywheel/rounds/test_external.py", "flywheel/generators", "test_plug_in.py",
    "flywheel/rounds/test_tracks.py", "curation/sources/urls", "flywheel/core/test_decode_memory.py",
    "flywheel/core/test_hashes.py", "flywheel/core/test_lock.py", "flywheel/core/test_serving.py",
    "curation/decide/test_copies.py", "curation/decide/test_likeness.py", "curation/captioning/test_written.py",
    "flywheel/rounds/test_playground.py",
)  # fmt: skip


# What is costly to make is made once where all files that use it run in one process.
SHARED = {
    "a finished run": re.compile(r"\b(micro_run|copied):"),
    "a tiny pipeline": re.compile(r"\bred_pipeline\b"),
    "Ray": re.compile(r"\bray_session\b|\b(curated|pictured):"),
    "Prefect": re.compile(r"\b(server|recorded): dict\b|\bserver_process:"),
}
# What takes longest starts first, so that no process is left alone with it.
FIRST = ("a finished run", "test_docs.py", "Prefect", "Ray", "training/test_distributed.py", "flywheel/rounds/test_run")


@cache
def unit(place: str) -> str:
    """What a test file is run together with: a name of `SHARED`, or its own path below this folder."""
    text = (HERE / place).read_text()
    return next((name for name, used in SHARED.items() if used.search(text)), place)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what `make quick` leaves out, and start with what takes longest."""

    def order(item: pytest.Item) -> int:
        mine = unit(item.path.relative_to(HERE).as_posix())
        return next((n for n, first in enumerate(FIRST) if mine.startswith(first)), len(FIRST))

    for item in items:
        place = item.path.relative_to(HERE).as_posix()
        if place.startswith(SLOW_FOLDERS) or SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    items.sort(key=order)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give out whole units (`unit`) in the order of the tests."""
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid.partition("::")[0].removeprefix("tests/"))

    config.option.loadscopereorder = False
    return Units(config, log)


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
