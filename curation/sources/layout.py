"""What the files of a source are: pictures, tars, Parquet, zips, URL lists, and what belongs to none of them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from curation.sources import files
from curation.sources.files import File
from curation.sources.folder import companion
from curation.sources.sidecars import CAPTIONS, METADATA
from curation.sources.urls.lists import LIST_SUFFIXES, is_text_list, url_columns

_TAR = tuple(f".tar{c}" for c in ("", ".gz", ".bz2", ".xz", ".zst")) + (".tgz", ".tbz2", ".txz", ".tzst")
_KINDS = ("picture", "tar", "parquet", "zip", "list")
_PARQUET = (".parquet", ".parq", ".pq")
_HEADS = {b"PAR1": "parquet", b"PK\x03\x04": "zip"}  # of files whose names say nothing


@dataclass(frozen=True)
class Layout:
    """Files of a source by kind, in listed order. left_out: (name, why) of files that are no input and no caption."""

    pictures: tuple[File, ...] = ()  # with their side-cars and lists of captions
    tars: tuple[File, ...] = ()
    parquets: tuple[File, ...] = ()
    zips: tuple[File, ...] = ()
    lists: tuple[File, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def containers(self) -> tuple[File, ...]:
        """Files that hold pictures, in listed order."""
        return tuple(sorted((*self.tars, *self.parquets, *self.zips), key=lambda f: f.name))


def arranged(found: Iterable[File], captions: Path | None = None) -> Layout:
    """Sort files by kind. A single file may have any name: then its first bytes count.

    Parquet files of one folder are taken to have the same columns.
    """
    listed = list(found)
    own = files.absolute(captions) if captions else ""
    kinds = {f.uri: "captions" if f.uri == own else kind_of(f.name) for f in listed}
    if len(listed) == 1 and kinds[listed[0].uri] == "picture":
        kinds[listed[0].uri] = _by_head(listed[0])
    if listed and all(f.name.lower().endswith(".txt") for f in listed) and is_text_list(listed[0]):
        kinds = {f.uri: "list" for f in listed}
    described = _described(listed, kinds)
    left_out: list[tuple[str, str]] = []
    of_folder: dict[str, str] = {}  # folder → whether its Parquet files hold pictures or URLs
    by_kind: dict[str, list[File]] = {}
    for file in listed:
        kind = kinds[file.uri]
        if why := described.get(file.name) or (companion(file.name) and "describes the data set"):
            left_out.append((file.name, why))
            continue
        if kind == "parquet":
            folder = posixpath.dirname(file.name)
            kind = of_folder.setdefault(folder, "list" if url_columns(file) else "parquet")
        elif kind == "list" and not file.name.lower().endswith(".txt") and not url_columns(file):
            kind, file = "picture", replace(file, fault="a table without a column of URLs or pictures")
        by_kind.setdefault("picture" if kind == "captions" else kind, []).append(file)
    pictures, tars, parquets, zips, lists = (tuple(by_kind.get(k, ())) for k in _KINDS)
    return Layout(pictures, tars, parquets, zips, lists, tuple(left_out))


def kind_of(name: str) -> str:
    """tar, parquet, zip, list or picture, by a file's name."""
    lower = name.lower()
    if lower.endswith(_TAR):
        return "tar"
    if lower.endswith(_PARQUET):
        return "parquet"
    if lower.endswith(".zip"):
        return "zip"
    if name == CAPTIONS or posixpath.basename(name) in METADATA:
        return "captions"
    return "list" if lower.endswith(LIST_SUFFIXES) else "picture"


def _by_head(file: File) -> str:
    if file.fault:
        return "picture"
    try:
        with files.open_file(file) as opened:
            head = opened.read(512)
    except OSError:
        return "picture"  # its fault is said when it is read
    if head[257:262] == b"ustar":
        return "tar"
    return next((kind for magic, kind in _HEADS.items() if head.startswith(magic)), "picture")


def _described(listed: Sequence[File], kinds: dict[str, str]) -> dict[str, str]:
    """Parquet files that only describe what a tar or folder of the same name holds, as img2dataset writes them."""
    stems = {posixpath.splitext(f.name)[0]: f.name for f in listed if kinds[f.uri] == "tar"}
    folders = {posixpath.dirname(f.name) for f in listed}
    found = {}
    for file in listed:
        stem = posixpath.splitext(file.name)[0]
        if kinds[file.uri] == "parquet" and (stem in stems or stem in folders):
            found[file.name] = f"describes {stems.get(stem, stem + '/')}"
    return found
