"""Local copies of objects on S3 that must be plain files: checkpoints in training or in use, and databases.

The copy of s3://bucket/key is `image-flywheel/s3/<server>/bucket/key` in the user's cache folder. The cache is
disposable, except for files that a run or a feedback server on this machine has not published yet. A local path is its
own copy.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.core import hashes
from flywheel.core.files import discard
from flywheel.core.storage import endpoint, located, remote

if TYPE_CHECKING:
    from flywheel.core.storage import RemotePath

_PUBLISH_SECONDS = 60.0  # a machine that loses its disk loses at most this much training


def mirror(place: str | os.PathLike[str]) -> Path:
    """Path of the copy of a file or folder; the copy need not exist."""
    path = located(place)
    if not remote(path):
        return path
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "image-flywheel" / "s3" / hashlib.sha256(endpoint().encode()).hexdigest()[:8] / path.path.rstrip("/")


def fetched(place: str | os.PathLike[str]) -> Path:
    """The copy of a file or folder, brought up to date with S3: only files that differ are read."""
    path, copy = located(place), mirror(place)
    if not remote(path):
        return copy
    objects = _objects(path)
    for name in [n for n in _files(copy) if n not in objects]:
        (copy / name).unlink()
    for name, info in objects.items():
        file = copy / name
        if not _same(file, info):
            file.parent.mkdir(parents=True, exist_ok=True)
            tmp = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
            try:
                path.fs.get_file(info["name"], str(tmp))
                _date(tmp, info)
                os.replace(tmp, file)
            finally:
                tmp.unlink(missing_ok=True)
    _drop_empty(copy)
    return copy


def kept(files: Sequence[str]) -> list[str]:
    """Copies of files that never change, such as those of ledgers: each is fetched once, many at a time."""
    copies = [mirror(f) for f in files]
    missing = [(f, c) for f, c in zip(files, copies) if not c.exists()]
    if missing and remote(path := located(files[0])):
        tmps = [c.with_name(f".{c.name}.{uuid.uuid4().hex}.tmp") for _, c in missing]
        tmps[0].parent.mkdir(parents=True, exist_ok=True)
        path.fs.get([f for f, _ in missing], [str(tmp) for tmp in tmps])
        for tmp, (_, copy) in zip(tmps, missing):
            os.replace(tmp, copy)
    return [str(c) for c in copies]


def publish(place: str | os.PathLike[str]) -> None:
    """Bring a folder on S3 up to date with its copy: only files that differ are written; hidden ones are unfinished.

    JSON is written last and removed first, so that a checkpoint with a `config.json` is complete.
    """
    path, copy = located(place), mirror(place)
    if not remote(path) or not copy.is_dir():
        return
    files, objects = _files(copy), _objects(path)
    for name in sorted(objects.keys() - files, key=_json_last, reverse=True):
        discard(path / name)
    changed = [n for n in sorted(files, key=_json_last) if n not in objects or not _same(copy / n, objects[n])]
    for name in changed:
        with suppress(FileNotFoundError):  # an intermediate checkpoint that was pruned just now
            hashes.upload(copy / name, path / name)
    if changed:
        objects = _objects(path)
        for name in changed:
            with suppress(FileNotFoundError, KeyError):
                _date(copy / name, objects[name])


class Publisher:
    """Publishes folders at most once a minute while their copies are worked in; may be called at any rate."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self.last = time.monotonic()

    def __call__(self) -> None:
        """Publish if the last time was more than a minute ago."""
        if time.monotonic() - self.last >= _PUBLISH_SECONDS:
            for folder in self.folders:
                publish(folder)
            self.last = time.monotonic()


def _objects(path: RemotePath) -> dict[str, Mapping[str, Any]]:
    """Name below `path` → size and time of each object; the name is empty if `path` is an object itself.

    Some tools mark a folder by an object of its name and a slash: these are left out, and so are records of hashes.
    """
    listing = path.fs.find(str(path), detail=True)
    start = len(path.path.rstrip("/"))
    names = {name[start:].lstrip("/"): info for name, info in listing.items() if not name.endswith("/")}
    return {name: info for name, info in names.items() if hashes.FOLDER not in name.split("/")}


def _files(copy: Path) -> set[str]:
    """Names of the copy's files, except those that are hidden or in a hidden folder."""
    names = (p.relative_to(copy) for p in copy.rglob("*") if p.is_file())
    return {str(name) for name in names if not any(part.startswith(".") for part in name.parts)}


def _same(file: Path, info: Mapping[str, Any]) -> bool:
    try:
        state = file.stat()
    except FileNotFoundError:
        return False
    return state.st_size == info["size"] and state.st_mtime_ns == _stamp(info)


def _date(file: Path, info: Mapping[str, Any]) -> None:
    os.utime(file, ns=(_stamp(info), _stamp(info)))


def _stamp(info: Mapping[str, Any]) -> int:
    """Modification time in ns that marks a copy of this object: its time in seconds, then digits from its tag."""
    below = int(hashlib.sha256(info["ETag"].encode()).hexdigest()[:16], 16) % 10**9
    return int(info["LastModified"].timestamp()) * 10**9 + below


def _json_last(name: str) -> tuple[bool, int, str]:
    """Order of writing: JSON last, and of that the deepest first."""
    last = name.endswith(".json")
    return last, -name.count("/") if last else 0, name


def _drop_empty(copy: Path) -> None:
    folders = sorted((p for p in copy.rglob("*") if p.is_dir()), reverse=True)
    for folder in folders:
        with suppress(OSError):  # not empty
            folder.rmdir()
