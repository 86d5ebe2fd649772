"""What the files of a source are: pictures, tars, Parquet, zips, URL lists, and what belongs to none of them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from curation.sources import files
from curation.sources.files import File
from curation.sources.folder import companion
from curation.sources.sidecars import CAPTIONS, FILE_NAME, METADATA
from curation.sources.urls.lists import LIST_SUFFIXES, is_text_list, table_holds, url_columns

_TAR = tuple(f".tar{c}" for c in ("", ".gz", ".bz2", ".xz", ".zst")) + (".tgz", ".tbz2", ".txz", ".tzst")
_KINDS = ("picture", "tar", "parquet", "zip", "list")
_PARQUET = (".parquet", ".parq", ".pq")
_HEADS = {b"PAR1": "parquet", b"PK\x03\x04": "zip"}  # of files whose names say nothing
_NO_COLUMN = "a table without a column of URLs or pictures"
_LOOKED_AT, _LOOKED_AT_REMOTE = 64, 8  # Parquet files of a folder, one by one


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

    The first Parquet files of a folder are looked into; the others are taken to hold what the first of them holds.
    """
    listed = list(found)
    own = files.absolute(captions) if captions else ""
    kinds = {f.uri: "captions" if f.uri == own else kind_of(f.name) for f in listed}
    if len(listed) == 1 and kinds[listed[0].uri] == "picture":
        kinds[listed[0].uri] = _by_head(listed[0])
    if listed and all(f.name.lower().endswith(".txt") for f in listed) and is_text_list(listed[0]):
        kinds = {f.uri: "list" for f in listed}
    tables = _Tables()
    described = _described(listed, kinds, tables)
    left_out: list[tuple[str, str]] = []
    by_kind: dict[str, list[File]] = {}
    for file in listed:
        kind = kinds[file.uri]
        if why := described.get(file.name) or (companion(file.name) and "describes the data set"):
            left_out.append((file.name, why))
            continue
        if kind == "parquet":
            kind = {"urls": "list", "names": "captions"}.get(tables.holds(file), "parquet")
        elif kind == "captions" and file.uri != own and _lists_urls(file):
            kind = "list"
        elif kind == "list" and not file.name.lower().endswith(".txt") and not url_columns(file):
            kind, file = "picture", replace(file, fault=file.fault or _NO_COLUMN)
        by_kind.setdefault("picture" if kind == "captions" else kind, []).append(file)
    pictures, tars, parquets, zips, lists = (tuple(by_kind.get(k, ())) for k in _KINDS)
    return Layout(pictures, tars, parquets, zips, lists, tuple(left_out))


NESTED = "an archive or table inside an archive is not read: unpack the outer one"


def is_container(name: str) -> bool:
    """Whether a file of this name holds pictures itself, or may."""
    return kind_of(name) in ("tar", "parquet", "zip")


def kind_of(name: str) -> str:
    """tar, parquet, zip, list or picture, by a file's name."""
    lower = name.lower()
    if lower.endswith(_TAR):
        return "tar"
    if lower.endswith(_PARQUET):
        return "parquet"
    if lower.endswith(".zip"):
        return "zip"
    if posixpath.basename(name) in (CAPTIONS, *METADATA):
        return "captions"
    return "list" if lower.endswith(LIST_SUFFIXES) else "picture"


def _lists_urls(file: File) -> bool:
    """Whether a file with the name of one of captions names URLs, and no files."""
    columns = None if file.fault else url_columns(file)
    names = [name.lower() for name in columns.names] if columns else ["file"]
    return not any(name == "file" or name.endswith((FILE_NAME, f"{FILE_NAME}s")) for name in names)


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


class _Tables:
    """What the Parquet files of a source hold, as `table_holds` says; of a folder, only the first are looked into."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}  # folder → file → what it holds

    def holds(self, file: File) -> str:
        known = self._known.setdefault(posixpath.dirname(file.name), {})
        if file.uri not in known:
            enough = _LOOKED_AT_REMOTE if files.is_remote(file.uri) else _LOOKED_AT
            many = len(known) >= enough and posixpath.basename(file.name) not in METADATA
            sound = [found for found in known.values() if found] if many else []
            known[file.uri] = sound[0] if sound else table_holds(file)
        return known[file.uri]


def _described(listed: Sequence[File], kinds: dict[str, str], tables: _Tables) -> dict[str, str]:
    """Parquet files that only describe what a tar or folder of the same name holds, as img2dataset writes them."""
    stems = {posixpath.splitext(f.name)[0]: f.name for f in listed if kinds[f.uri] == "tar"}
    folders = {posixpath.dirname(f.name) for f in listed}
    found = {}
    for file in listed:
        stem = posixpath.splitext(file.name)[0]
        if kinds[file.uri] != "parquet" or (stem not in stems and stem not in folders):
            continue
        if tables.holds(file) in ("urls", "words"):  # pictures, or names of them, are no description
            found[file.name] = f"describes {stems.get(stem, stem + '/')}"
    return found
