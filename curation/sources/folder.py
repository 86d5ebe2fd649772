"""Pictures that are files: of a folder, a bucket's prefix, a glob or a zip, with captions beside them or in a list."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from curation.sources import MAX_BYTES, BadInput, Input, files
from curation.sources.captions import Annotation, OddLine, read_captions
from curation.sources.files import File
from curation.sources.rights import merged
from curation.sources.sidecars import (
    CAPTIONS,
    METADATA,
    Noted,
    OddNote,
    alike,
    attached,
    inside,
    metadata,
    renamed,
    side_car,
)
from flywheel.core.errors import UsageError

MOST_ODD = 0.9  # share of a captions file's lines that may be unusable: above it, the file is refused as a whole
# What tools write beside pictures, and people beside data sets.
COMPANIONS = frozenset((
    "readme", "readme.md", "readme.txt", "license", "license.md", "license.txt", "licence", "licence.md", "licence.txt",
    "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "_success", "_metadata",
    "_common_metadata", "thumbs.db", "desktop.ini", "croissant.json", "export.json",
))  # fmt: skip
_TOGETHER = 64  # side-cars that are read at once

Read = Callable[[Sequence[File]], Iterator[bytes | BadInput]]


@dataclass(frozen=True)
class Folder:
    """Every file is an input, except side-cars, lists of captions, masks and `COMPANIONS`.

    A file without a caption is a row without one. Captions come from --captions, or `captions.jsonl` of any folder,
    from `metadata.jsonl`, `.csv` or `.parquet` of any folder, then from a .json, .txt or .caption beside the picture;
    all are kept. A line with `references` makes its file the target of an edit pair; several lines of one file without
    references add captions to one row. A file that is named only as a `mask` is not an input itself.
    """

    address: str
    listed: tuple[File, ...]
    captions: Path | None = None
    read_files: Read = files.read
    kind: str = "folder"

    def inputs(self) -> list[Input]:
        """Files in order, then lines of captions and metadata files that cannot be used.

        Errors: `UsageError` where no file is left, and for captions of which most lines cannot be used.
        """
        by_name = {f.name: f for f in self.listed if not self.is_list(f) and not companion(f.name)}
        notes: dict[str, list[Annotation]] = {}
        odd: list[Input] = []
        for found in self._lines(by_name):
            if isinstance(found, Noted):
                notes.setdefault(found.name, []).append(found.note)
            else:
                odd.append(self._odd(found))
        beside = attached(list(by_name))
        used = {text for texts in beside.values() for text in texts}
        faults = self._side_cars(by_name, beside, notes)
        masks = {n.mask for group in notes.values() for n in group} - notes.keys()
        rows = [
            row
            for name, file in by_name.items()
            if name not in masks and name not in used
            for row in _rows(_input(file, faults.get(name)), notes.get(name, []), by_name)
        ]
        if not rows and not odd:
            raise UsageError(f"source {self.address} holds no files: give a folder with images in it")
        return rows + odd

    def each(self) -> Iterator[Input]:
        """As `inputs`: captions files name pictures in any order, so all names are in memory."""
        yield from self.inputs()

    def narrowed(self, inputs: Sequence[Input]) -> Folder:
        """The folder with only the files that these inputs need."""
        wanted = {uri for i in inputs for uri in (i.uri, i.mask, *i.references)}
        return replace(self, listed=tuple(f for f in self.listed if f.uri in wanted))

    def check(self) -> None:
        """Errors: `UsageError` that a user can fix before anything is read."""
        if not self.listed:
            raise UsageError(f"source {self.address} holds no files: give a folder with images in it")
        if self.captions or any(self.is_list(f) for f in self.listed):
            self.inputs()

    def read(self, inputs: Sequence[Input]) -> Iterator[bytes | BadInput]:
        """Each file's bytes, read once; `BadInput` if the file changed since it was listed."""
        return self.read_files([File(i.uri, "", i.size, i.mtime_ns) for i in inputs])

    def read_mask(self, item: Input) -> bytes | BadInput:
        """The bytes of the mask's file."""
        file = self._by_uri.get(item.mask)
        if file is None or file.fault:
            why = file.fault if file else "it is not in the source any more"
            return BadInput(f"mask {item.mask} is unusable: {why}")
        content = next(self.read_files([file]))
        return BadInput(f"mask {item.mask} is {content}") if isinstance(content, BadInput) else content

    def lists(self, uri: str) -> bool:
        """Whether the folder holds a file with this address."""
        return uri in self._by_uri

    def is_list(self, file: File) -> bool:
        """Whether a file lists captions of others."""
        return posixpath.basename(file.name) in (CAPTIONS, *METADATA) or (
            self.captions is not None and file.uri == files.absolute(self.captions)
        )

    def _odd(self, odd: OddNote) -> Input:
        file = self._by_uri.get(odd.file) or files.state(odd.file)
        return Input(f"{odd.file}#line={odd.line.number}", mtime_ns=file.mtime_ns, fault=_of_line(odd.line))

    @cached_property
    def _by_uri(self) -> dict[str, File]:
        return {f.uri: f for f in self.listed}

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(alike(f.name) for f in self.listed)

    def _lines(self, by_name: dict[str, File]) -> Iterator[Noted | OddNote]:
        """What the captions file and the metadata files say; a line that names a missing file is odd."""
        present = {alike(name): name for name in by_name} | {name: name for name in by_name}
        for place, lines in self._lists():
            read = [_placed(line, place, present, self.address) for line in lines]
            odd = [line for line in read if isinstance(line, OddNote)]
            if len(odd) > MOST_ODD * len(read):
                raise UsageError(
                    f"{place}: {len(odd)} of {len(read)} lines cannot be used; {_of_line(odd[0].line)}; file names are"
                    " relative to the source folder, or to the folder of that file below it"
                )
            yield from read

    def _lists(self) -> Iterator[tuple[str, Iterator[Noted | OddNote]]]:
        """(address, lines) of the captions file and of each metadata file."""
        if self.captions:
            path = self.captions.expanduser().absolute()
            if not path.is_file():
                raise UsageError(f"captions file {path} does not exist")
            yield str(path), self._captions(path.read_bytes(), str(path), "")
        for file in self.listed:
            folder, base = posixpath.split(file.name)
            if base == CAPTIONS and not self.captions:
                yield file.uri, self._captions(self._content(file), file.uri, folder)
            if base in METADATA:
                yield file.uri, metadata(file.name, self._content(file))

    def _content(self, file: File) -> bytes:
        content = BadInput(file.fault) if file.fault else next(self.read_files([file]))
        if isinstance(content, BadInput):
            raise UsageError(f"captions file {file.uri} cannot be read: {content}")
        return content

    def _captions(self, content: bytes, place: str, folder: str) -> Iterator[Noted | OddNote]:
        root = self.address.rstrip("/") + "/"

        def place_of(name: str) -> str:
            """Below the folder of the captions file, or else below the source."""
            beside = inside(folder, name)
            return beside if alike(beside) in self._names else inside("", name)

        for line in read_captions(content):
            if isinstance(line, OddLine):
                yield OddNote(place, line)
            else:
                number, name, note = line
                yield Noted(number, place_of(name.removeprefix(root)), renamed(note, place_of))

    def _side_cars(
        self, by_name: dict[str, File], beside: dict[str, list[str]], notes: dict[str, list[Annotation]]
    ) -> dict[str, str]:
        """Add what side-cars say to `notes`; returns the faults of those that cannot be used, by picture."""
        faults: dict[str, str] = {}
        pictures = list(beside)
        for start in range(0, len(pictures), _TOGETHER):
            group = [(name, text) for name in pictures[start : start + _TOGETHER] for text in beside[name]]
            contents: dict[str, dict[str, bytes]] = {}
            for (name, text), content in zip(group, self.read_files([by_name[text] for _, text in group])):
                if isinstance(content, BadInput):
                    faults[name] = f"caption file {text}: {content}"
                else:
                    contents.setdefault(name, {})[posixpath.splitext(text)[1].lower()] = content
            for name, texts in contents.items():
                try:
                    note = renamed(side_car(texts), partial(inside, posixpath.dirname(name)))
                    if missing := [n for n in _named(note) if n not in by_name]:
                        raise ValueError(f"names {missing[0]!r}, which is not in {self.address}")
                    notes.setdefault(name, []).append(note)
                except ValueError as error:
                    faults[name] = f"unreadable caption file {beside[name][0]}: {error}"
        return faults


def folder_at(address: str | Path, captions: Path | None = None) -> Folder:
    """The folder of all files at an address. Errors: `UsageError`."""
    place = files.absolute(address)
    return Folder(place, tuple(files.find(place)), captions)


def companion(name: str) -> bool:
    """True for a file that describes a data set and is never a picture."""
    base = posixpath.basename(name).lower()
    return base in COMPANIONS or base.endswith("_stats.json")


def _named(note: Annotation) -> list[str]:
    return [*note.references, *filter(None, [note.mask])]


def _placed(line: Noted | OddNote, place: str, present: dict[str, str], source: str) -> Noted | OddNote:
    """The line with names as the listing has them, or odd if one is missing."""
    if isinstance(line, OddNote):
        return OddNote(place, line.line)
    named = [line.name, *_named(line.note)]
    found = {name: present.get(name) or present.get(alike(name)) for name in named}
    if missing := [name for name, there in found.items() if there is None]:
        return OddNote(place, OddLine(line.line, f"names {missing[0]!r}, which is not in {source}"))
    return replace(line, name=found[line.name] or "", note=renamed(line.note, lambda n: found[n] or ""))


def _of_line(odd: OddLine) -> str:
    return f"line {odd.number}: {odd.fault}"


def _input(file: File, fault: str | None) -> Input:
    if file.size > MAX_BYTES:
        fault = f"too large: {file.size} bytes is over {MAX_BYTES}"
    return Input(file.uri, file.size, file.mtime_ns, fault=file.fault or fault)


def _rows(file: Input, notes: list[Annotation], by_name: dict[str, File]) -> list[Input]:
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
        for n in (renamed(n, lambda name: by_name[name].uri) for n in pairs)
    ]
    return rows
