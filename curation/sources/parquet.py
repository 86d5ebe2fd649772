"""Parquet with embedded image bytes: a binary column, or the struct {bytes, path} of Hugging Face datasets.

Edit pairs have their reference images in a second column, one image or a list of images per row.
"""

from __future__ import annotations

import posixpath
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.sources import MAX_BYTES, BadInput, Input
from curation.sources.captions import Annotation, annotation, parsed
from curation.sources.column_types import TEXT_FIELDS, is_bytes, is_image, is_list, is_text, is_word, states_rights
from curation.sources.columns import (
    CAPTION_NAMES,
    IMAGE_NAMES,
    INSTRUCTION_NAMES,
    MASK_NAMES,
    REFERENCE_NAMES,
    every,
    first,
    spoken,
)
from curation.sources.files import File, is_remote, open_file, read, state
from curation.sources.rights import columns_of
from flywheel.core.errors import UsageError, first_line
from flywheel.core.storage import readable, remote

_BATCH = 64  # rows in memory at a time
_TEXT_COLUMNS = frozenset((*INSTRUCTION_NAMES, *CAPTION_NAMES))  # also where their text is stored as bytes
Picture = bytes | str | None  # embedded, or the name of a file
_SLOTS = 256  # pictures of one row: its own, then its references; the mask is the last


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read; of captions and instructions, a row has the first that says something."""

    image: str
    references: str | None
    mask: str | None
    captions: tuple[str, ...]
    instructions: tuple[str, ...]  # of rows with references
    more: tuple[str, ...]  # captions, stream and rights: as in a captions JSONL


@dataclass(frozen=True)
class Parquet:
    """One input per row, `path#row`; each reference of a pair is an input itself, `path#row/1`, `path#row/2`, …

    Texts come from a column named caption, text, prompt or txt, instructions also from instruction or edit_prompt; of
    several such columns, a row has the first that says something;
    the columns `captions` and `stream` have the same meaning as in a captions JSONL.
    """

    file: File
    kind: str = "parquet"

    @property
    def address(self) -> str:
        """Path or URL of the file."""
        return self.file.uri

    def check(self) -> None:
        """Errors: `UsageError` when the file is unreadable or has no image column."""
        _ = self.columns

    def inputs(self) -> list[Input]:
        """Rows in file order. Errors: `UsageError` when the file is unreadable, empty, or has no image column."""
        return list(self.each())

    def each(self) -> Iterator[Input]:
        """As `inputs`, one at a time."""
        none = True
        for item in self.first_inputs():
            none = False
            yield item
        if none:
            raise UsageError(f"source {self.file.uri} holds no rows")

    def first_inputs(self) -> Iterator[Input]:
        """As `each`, for a look at the file: one without rows is no error."""
        changed = self.file.mtime_ns
        for number, row in enumerate(self._rows()):
            if isinstance(row, BadInput):
                yield Input(f"{self.file.uri}#{number}", 0, changed, number * _SLOTS, fault=str(row))
            else:
                pictures, texts = row
                yield from self._inputs(number, [self._size(p) for p in pictures], texts, changed)

    def narrowed(self, inputs: Sequence[Input]) -> Parquet:
        """The file, unopened."""
        return Parquet(self.file, self.kind)

    def read(self, inputs: Sequence[Input]) -> Iterator[bytes | BadInput]:
        """Bytes of these pictures: ascending rows are read in one pass, and row groups without any are skipped."""
        for item in inputs:
            row, slot = divmod(item.position, _SLOTS)
            pictures = self._cursor.pictures(row)
            if pictures is None or slot >= len(pictures):
                yield BadInput("changed while it was being ingested: ingest the source again")
            else:
                yield self._content(pictures[slot])

    def read_mask(self, item: Input) -> bytes | BadInput | None:
        """The bytes in the mask column of the input's row."""
        masks = self._masks.pictures(item.position // _SLOTS)
        if not masks:
            return BadInput("changed while it was being ingested: ingest the source again")
        return None if masks[0] is None else self._content(masks[0])

    def _content(self, picture: Picture) -> bytes | BadInput:
        """The bytes in a row, or of the file that it names instead."""
        if isinstance(picture, bytes):
            return picture
        if picture is None:
            return BadInput("no embedded bytes in this row")
        file = self._beside(picture)
        if file.fault:
            return BadInput(f"no embedded bytes in this row, and its file {picture!r} is {file.fault}")
        return next(read([file]))

    def _beside(self, name: str) -> File:
        """The file with this name below the folder of the Parquet file."""
        folder = posixpath.dirname(self.file.uri)
        place = posixpath.normpath(name)
        if "://" in name or posixpath.isabs(place) or place.startswith(".."):
            return File(name, name, fault="not below the folder of the Parquet file")
        return state(f"{folder}/{place}")

    def _size(self, picture: Picture) -> int:
        if isinstance(picture, str):
            return self._beside(picture).size
        return -1 if picture is None else len(picture)

    def _inputs(self, number: int, sizes: list[int], texts: dict[str, Any], changed: int) -> Iterator[Input]:
        uris = [f"{self.file.uri}#{number}" + (f"/{slot}" if slot else "") for slot in range(len(sizes))]
        places = [number * _SLOTS + slot for slot in range(len(sizes))]
        first, *references = (
            replace(Input(u, max(s, 0), changed, p), fault=_fault(s)) for u, s, p in zip(uris, sizes, places)
        )
        if len(sizes) >= _SLOTS:
            yield replace(first, fault=f"{len(sizes) - 1} references: at most {_SLOTS - 2} are possible")
            return
        try:
            note = self._annotation(texts, uris[1:])
        except ValueError as error:
            yield replace(first, fault=first.fault or f"unreadable caption: {error}")
        else:
            mask = f"{first.uri}/mask" if note.references and self.columns.mask else ""
            yield replace(
                first,
                task=note.task,
                stream=note.stream,
                captions=note.captions,
                references=note.references,
                mask=mask,
                rights=note.rights,
            )
        yield from references

    def _annotation(self, texts: dict[str, Any], references: list[str]) -> Annotation:
        columns = self.columns
        own = columns.instructions if references else columns.captions
        name = spoken(own, {n: texts[n] for n in own}) or next(iter(own), "")
        for column in (name, *columns.more):
            if isinstance(bad := texts.get(column), BadInput):
                raise ValueError(str(bad))
        text = texts.get(name)
        row = {name: texts[name] for name in columns.more if texts[name] is not None}
        if references:
            row |= {"references": references, "stream": "ti2i"}
        stated = texts.get(first(("json",), (*own, *columns.more)) or "")
        if isinstance(stated, dict):  # as a .json member of a tar does
            row = {n: stated[n] for n in columns_of(tuple(stated))} | row
        if isinstance(text, dict):
            row = {n: v for n, v in text.items() if n.lower() in TEXT_FIELDS and v} | row
        elif text:  # of a list, the first is primary
            row["caption"] = text
        return annotation(row)

    def _rows(self) -> Iterator[tuple[list[Picture], dict[str, Any]] | BadInput]:
        """(own picture and references, texts by column) of each row, or why its row group cannot be read."""
        columns = self.columns
        texts = tuple(dict.fromkeys((*columns.captions, *columns.instructions, *columns.more)))
        pictures = [c for c in (columns.image, columns.references) if c]
        with open_parquet(self.file) as file:
            for group in range(file.num_row_groups):
                size, done = file.metadata.row_group(group).num_rows, 0
                try:
                    for batch in file.iter_batches(_BATCH, row_groups=[group], columns=[*pictures, *texts]):
                        for row in zip(_pictures(batch, *pictures), text_rows(batch, texts)):
                            done += 1
                            yield row
                except (pa.ArrowException, OSError) as error:
                    fault = f"row group {group} cannot be read: {first_line(error)}"
                    for _ in range(size - done):
                        yield BadInput(fault)

    @cached_property
    def _cursor(self) -> _Cursor:
        return _Cursor(self.file, self.columns.image, self.columns.references)

    @cached_property
    def _masks(self) -> _Cursor:
        return _Cursor(self.file, self.columns.mask or "", None)

    @property
    def names(self) -> list[str]:
        """Names of all its columns."""
        with open_parquet(self.file) as file:
            return list(file.schema_arrow.names)

    @cached_property
    def columns(self) -> Columns:
        with open_parquet(self.file) as file:
            schema = file.schema_arrow
        texts = {f.name for f in schema if is_text(f.type) or (is_bytes(f.type) and f.name.lower() in _TEXT_COLUMNS)}
        pictures = {f.name for f in schema if is_image(f.type)} - texts
        lists = {f.name for f in schema if is_list(f.type) and is_image(f.type.value_type)}
        references = first(REFERENCE_NAMES, pictures | lists)
        mask = first(MASK_NAMES, pictures)
        image = first(IMAGE_NAMES, pictures) or next(
            (n for n in schema.names if n in pictures and n not in (references, mask)), None
        )
        if image is None:
            raise UsageError(
                f"source {self.file.uri} has no image column (binary, or a struct with bytes);"
                f" it has {', '.join(schema.names)}"
            )
        rights = [n for n in columns_of(schema.names) if is_word(schema.field(n).type)]
        said = [f.name for f in schema if f.name.lower() == "json" and f.name not in texts and states_rights(f.type)]
        more = (*(n for n in ("captions", "stream") if n in schema.names), *rights, *said)
        instructions = every(INSTRUCTION_NAMES, texts) if references else ()
        found = Columns(image, references, mask, every(CAPTION_NAMES, texts), instructions, more)
        read = {image, references, mask, *found.captions, *instructions, *more}
        if twice := sorted(n for n, count in Counter(schema.names).items() if count > 1 and n in read):
            raise UsageError(f"source {self.file.uri} has several columns named {twice[0]!r}: rename all but one")
        return found


class _Cursor:
    """Random access to the pictures of a row; rows in ascending order take one pass through the file."""

    def __init__(self, place: File, *columns: str | None) -> None:
        self._file, self._columns = place, [c for c in columns if c]
        with open_parquet(place) as file:
            sizes = (file.metadata.row_group(g).num_rows for g in range(file.num_row_groups))
            self._stops = list(accumulate(sizes))  # end of each row group, in rows
        self._group = -1
        self._start = self._end = 0  # rows of the current batch
        self._batch: list[list[Picture]] = []

    def pictures(self, row: int) -> list[Picture] | None:
        """Own picture and references; None if the file has no such row."""
        group = bisect_right(self._stops, row)
        if group == len(self._stops):
            return None
        if row < self._start or group != self._group:
            self._group, self._batches = group, self._read(group)
            self._start = self._end = self._stops[group - 1] if group else 0
        while row >= self._end:
            self._batch = next(self._batches)
            self._start, self._end = self._end, self._end + len(self._batch)
        return self._batch[row - self._start]

    def _read(self, group: int) -> Iterator[list[list[Picture]]]:
        with open_parquet(self._file) as file:
            for batch in file.iter_batches(_BATCH, row_groups=[group], columns=self._columns):
                yield _pictures(batch, *self._columns)


def open_parquet(file: File) -> pq.ParquetFile:
    """Open a file of a source. Errors: `UsageError`."""
    if file.fault:
        raise UsageError(f"source {file.uri} cannot be read: {file.fault}")
    try:
        if is_remote(file.uri) and not remote(file.uri):
            return pq.ParquetFile(open_file(file))
        return pq.ParquetFile(readable(file.uri))
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"source {file.uri} is not a readable Parquet file: {error}") from error


def text_rows(batch: pa.RecordBatch, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Per row, the values of the text columns; `BadInput` in place of one that is not UTF-8."""
    columns = [_values(batch.column(name), name) for name in names]
    for row in range(batch.num_rows):
        yield {name: column[row] for name, column in zip(names, columns)}


def _values(column: pa.Array, name: str) -> list[Any]:
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = [_value(column, n) for n in range(len(column))]
    if name.lower() == "json" or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        values = [_read_out(value, name) for value in values]
    return values


def _value(column: pa.Array, number: int) -> Any:
    try:
        return column[number].as_py()
    except UnicodeDecodeError as error:
        return _not_utf8(error)


def _read_out(value: Any, name: str) -> Any:
    """Text that is stored as bytes, and the value of JSON that is stored as text."""
    try:
        text = value.decode("utf-8-sig") if isinstance(value, bytes) else value
        return parsed(text) if isinstance(text, str) and name.lower() == "json" and text.lstrip()[:1] in "{[" else text
    except UnicodeDecodeError as error:
        return _not_utf8(error)
    except ValueError as error:
        return BadInput(str(error))


def _not_utf8(error: UnicodeDecodeError) -> BadInput:
    return BadInput(f"text is not UTF-8: {error.reason} at byte {error.start}")


def _pictures(batch: pa.RecordBatch, image: str, references: str | None = None) -> list[list[Picture]]:
    """Per row, its own picture and its references; a null reference column means no reference, a null in a list one."""
    own = [_content(v) for v in _images(batch.column(image))]
    if references is None:
        return [[picture] for picture in own]
    out = []
    for picture, value in zip(own, _images(batch.column(references))):
        listed = value if isinstance(value, list) else [] if value is None else [value]
        out.append([picture, *map(_content, listed)])
    return out


def _images(column: pa.Array) -> list[Any]:
    """Values of a column of pictures; a file's name that is not UTF-8 is none."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        if not pa.types.is_struct(column.type):
            return [None if isinstance(v := _value(column, n), BadInput) else v for n in range(len(column))]
        return [None if data is None else {"bytes": data} for data in pc.struct_field(column, "bytes").to_pylist()]


def _content(value: Any) -> Picture:
    if not isinstance(value, dict):
        return value
    return value["bytes"] if value["bytes"] is not None else value.get("path")


def _fault(size: int) -> str | None:
    return f"too large: {size} bytes is over {MAX_BYTES}" if size > MAX_BYTES else None
