"""A folder of images, including its subfolders, with an optional captions JSONL."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from curation.sources import MAX_BYTES, BadInput, Input
from curation.sources.captions import Annotation, OddLine, read_captions
from curation.sources.rights import merged
from flywheel.core.errors import UsageError

CAPTIONS = "captions.jsonl"
MOST_ODD = 0.9  # share of a captions file's lines that may be unusable: above it, the file is refused as a whole


@dataclass(frozen=True)
class Folder:
    """Every file below `path` is an input, except hidden ones (name starts with a dot) and the captions file.

    A file that the captions file does not mention is a row without a caption. A line with `references` makes its file
    the target of an edit pair; several lines of one file without references add captions to one row. A file that is
    named only as a `mask` is not an input itself.
    """

    path: Path
    captions: Path | None = None
    kind: str = "folder"

    def inputs(self) -> list[Input]:
        """Files in path order, then lines of the captions file that cannot be used.

        Errors: `UsageError` for an empty folder, and for captions of which most lines cannot be used.
        """
        captions = self._captions_file()
        skipped = {os.path.realpath(p) for p in (captions, self.path / CAPTIONS) if p}
        files = {i.uri: i for i in _walk(self.path, skipped)}
        if not files:
            raise UsageError(f"source {self.path} holds no files: give a folder with images in it")
        notes, odd = self._annotations(captions, files) if captions else ({}, [])
        masks = {n.mask for group in notes.values() for n in group} - notes.keys()
        rows = [row for uri, file in files.items() if uri not in masks for row in _rows(file, notes.get(uri, []))]
        return rows + odd

    def read(self, inputs: Sequence[Input]) -> Iterator[bytes | BadInput]:
        """Each file's bytes, read once; `BadInput` if the file changed since it was listed."""
        for item in inputs:
            yield _read(item)

    def read_mask(self, item: Input) -> bytes | BadInput:
        """The bytes of the mask's file."""
        try:
            if fault := _fault(os.stat(item.mask)):  # opening a pipe would wait for its writer
                return BadInput(f"mask {item.mask} is unusable: {fault}")
            return Path(item.mask).read_bytes()
        except OSError as error:
            return BadInput(f"mask {item.mask} is unreadable: {error.strerror}")

    def _captions_file(self) -> Path | None:
        if self.captions:
            path = self.captions.expanduser().absolute()
            if not path.is_file():
                raise UsageError(f"captions file {path} does not exist")
            return path
        inside = self.path / CAPTIONS
        return inside if inside.is_file() else None

    def _annotations(self, captions: Path, files: dict[str, Input]) -> tuple[dict[str, list[Annotation]], list[Input]]:
        """Annotations by file, and an input for each line that cannot be used: its fault names the line."""
        notes: dict[str, list[Annotation]] = {}
        odd: list[OddLine] = []
        lines = list(read_captions(captions))
        alike = {_alike(uri): uri for uri in files}
        for line in lines:
            if isinstance(line, OddLine):
                odd.append(line)
                continue
            number, name, note = line
            named = (name, *note.references, *filter(None, [note.mask]))
            places = {n: os.path.normpath(self.path / n) for n in named}
            uris = {n: place if place in files else alike.get(_alike(place)) for n, place in places.items()}
            if missing := [n for n, uri in uris.items() if uri is None]:
                odd.append(OddLine(number, f"names {missing[0]!r}, which is not in {self.path}"))
                continue
            files_of = {n: uri for n, uri in uris.items() if uri}
            references = tuple(files_of[r] for r in note.references)
            annotated = replace(note, references=references, mask=files_of.get(note.mask, ""))
            notes.setdefault(files_of[name], []).append(annotated)
        if len(odd) > MOST_ODD * len(lines):
            raise UsageError(
                f"{captions}: {len(odd)} of {len(lines)} lines cannot be used; line {odd[0].number}: {odd[0].fault};"
                " file names are relative to the source folder"
            )
        changed = captions.stat().st_mtime_ns
        return notes, [
            Input(f"{captions}#line={line.number}", mtime_ns=changed, fault=f"line {line.number}: {line.fault}")
            for line in odd
        ]


def _alike(uri: str) -> str:
    """Equal for paths that differ only in Unicode form and in the direction of slashes."""
    return unicodedata.normalize("NFC", uri.replace("\\", "/"))


def _rows(file: Input, notes: list[Annotation]) -> list[Input]:
    """One row for the file itself, unless it is only the target of pairs, and one row per distinct pair."""
    plain = [n for n in notes if not n.references]
    pairs = list(dict.fromkeys(n for n in notes if n.references))
    rows = []
    if plain or not pairs:
        texts = tuple(dict.fromkeys(t for n in plain for t in n.captions))
        rights, stream = merged(n.rights for n in plain), plain[0].stream if plain else "t2i"
        rows.append(replace(file, captions=texts, stream=stream, rights=rights))
    rows += [
        replace(
            file, task="ti2i", stream="ti2i", captions=n.captions, references=n.references, mask=n.mask, rights=n.rights
        )
        for n in pairs
    ]
    return rows


def _walk(folder: Path, skipped: set[str]) -> Iterator[Input]:
    """Every file below a folder, in path order, however deep."""
    waiting: list[os.DirEntry[str] | Path] = [folder]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, Path) or entry.is_dir(follow_symlinks=False):
            try:
                inside = sorted(os.scandir(entry), key=lambda e: os.fsencode(e.name), reverse=True)
            except OSError as error:
                yield Input(uri=os.fspath(entry), fault=f"unreadable folder: {error.strerror}")
            else:
                waiting += [e for e in inside if not e.name.startswith(".")]
        elif os.path.realpath(entry.path) not in skipped:
            yield _listed(entry)


def _listed(entry: os.DirEntry[str]) -> Input:
    try:
        entry.path.encode()
    except UnicodeEncodeError:
        uri = os.fsencode(entry.path).decode("utf-8", "backslashreplace")
        return Input(uri=uri, fault="file name is not UTF-8: rename it")
    try:
        state = entry.stat()
    except OSError as error:
        return Input(uri=entry.path, fault=f"unreadable: {error.strerror}")
    return Input(entry.path, state.st_size, state.st_mtime_ns, fault=_fault(state))


def _fault(state: os.stat_result) -> str | None:
    if stat.S_ISDIR(state.st_mode):
        return "link to a folder: not followed"
    if not stat.S_ISREG(state.st_mode):
        return "not a regular file"
    if state.st_size > MAX_BYTES:
        return f"too large: {state.st_size} bytes is over {MAX_BYTES}"
    return None


def _read(item: Input) -> bytes | BadInput:
    try:
        with open(item.uri, "rb") as file:
            state = os.fstat(file.fileno())
            if (state.st_size, state.st_mtime_ns) != (item.size, item.mtime_ns):
                return BadInput("changed while it was being ingested: ingest the source again")
            return file.read()
    except OSError as error:
        return BadInput(f"unreadable: {error.strerror}")
