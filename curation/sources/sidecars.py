"""Annotations of the files of a folder: side-cars beside a picture, metadata files of image folders, captions JSONL."""

from __future__ import annotations

import io
import posixpath
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from curation.sources import BadInput, captions
from curation.sources.captions import Annotation, OddLine, annotation, as_utf8, json_rows
from curation.sources.columns import (
    CAPTION_NAMES,
    IMAGE_NAMES,
    INSTRUCTION_NAMES,
    MASK_NAMES,
    REFERENCE_NAMES,
    first,
    spoken,
)
from curation.sources.csvs import rows
from flywheel.core.errors import first_line

CAPTIONS = "captions.jsonl"
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
SUFFIXES = tuple(f".{suffix}" for suffix in captions.SUFFIXES)
_MAX_CAPTION = 1024 * 1024  # bytes of a side-car
FILE_NAME = "file_name"


@dataclass(frozen=True)
class Noted:
    """What one line of a captions or metadata file says of one file; names are paths below the source."""

    line: int
    name: str
    note: Annotation


@dataclass(frozen=True)
class OddNote:
    """A line of the captions or metadata file with this name that cannot be used."""

    file: str
    line: OddLine


def attached(names: Sequence[str]) -> dict[str, list[str]]:
    """Name of a picture → names of the side-cars beside it: same name, with another suffix or one more."""
    texts = {n: suffix for n in names if (suffix := posixpath.splitext(n)[1].lower()) in SUFFIXES}
    by_stem: dict[str, list[str]] = {}
    by_form: dict[str, list[str]] = {}  # of one Unicode form: archives of a Mac bring another than lists
    for text in sorted(texts, key=lambda n: SUFFIXES.index(texts[n])):
        stem = posixpath.splitext(text)[0]
        by_stem.setdefault(stem, []).append(text)
        by_form.setdefault(composed(stem), []).append(text)
    if not by_stem:
        return {}
    found = {}
    for name in names:
        if name in texts:
            continue
        keys = posixpath.splitext(name)[0], name
        if beside := _under(by_stem, *keys) or _under(by_form, *map(composed, keys)):
            found[name] = beside
    return found


def _under(texts: Mapping[str, list[str]], *keys: str) -> list[str]:
    return [text for key in keys for text in texts.get(key, [])]


def side_car(contents: Mapping[str, bytes]) -> Annotation:
    """The annotation in a picture's side-cars, by suffix. Errors: `ValueError`."""
    for suffix, content in contents.items():
        if len(content) > _MAX_CAPTION:
            raise ValueError(f"{suffix} of {len(content)} bytes is over {_MAX_CAPTION}")
    return captions.beside({suffix[1:]: content for suffix, content in contents.items()})


def metadata(name: str, content: bytes) -> Iterator[Noted | OddNote]:
    """Lines of a `metadata.jsonl`, `.csv` or `.parquet`, whose file names are relative to its folder.

    A row has `file_name`, or for edit pairs a column such as `edited_image_file_name` beside one such as
    `original_image_file_name`.
    """
    folder = posixpath.dirname(name)
    for number, row in _table(name, content):
        if isinstance(row, str):
            yield OddNote(name, OddLine(number, row))
            continue
        try:
            file, note = _row(row)
            yield Noted(number, inside(folder, file), renamed(note, lambda n: inside(folder, n)))
        except ValueError as error:
            yield OddNote(name, OddLine(number, str(error)))


def inside(folder: str, name: str) -> str:
    """The name below the source of a file that a line in `folder` names, with slashes of either direction."""
    return posixpath.normpath(posixpath.join(folder, name.replace("\\", "/")))


def renamed(note: Annotation, rename: Callable[[str], str]) -> Annotation:
    """The annotation with its references and mask renamed."""
    return replace(note, references=tuple(map(rename, note.references)), mask=rename(note.mask) if note.mask else "")


def alike(name: str) -> str:
    """Equal for names that differ only in Unicode form and in the direction of slashes."""
    return composed(name.replace("\\", "/"))


def composed(name: str) -> str:
    """The name in the Unicode form in which each letter with its marks is one character where there is one."""
    return unicodedata.normalize("NFC", name)


def _table(name: str, content: bytes) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line number, row, or why it cannot be read)."""
    if name.endswith(".csv"):
        for number, fields in rows(as_utf8(content).decode("utf-8-sig", "surrogateescape")):
            yield number, fields if isinstance(fields, str) else {k: v for k, v in fields.items() if v != ""}
        return
    if name.endswith(".parquet"):
        yield from _parquet(content)
        return
    for number, row in json_rows(content):
        yield number, row if isinstance(row, dict) else str(row) if isinstance(row, ValueError) else "not a JSON object"


def _parquet(content: bytes) -> Iterator[tuple[int, dict[str, Any] | str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curation.sources.parquet import text_rows

    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        yield 1, f"not a readable Parquet file: {first_line(error)}"
        return
    found = (row for batch in table.to_batches() for row in text_rows(batch, table.column_names))
    for number, row in enumerate(found, 1):
        bad = next((value for value in row.values() if isinstance(value, BadInput)), None)
        yield number, str(bad) if bad else {k: v for k, v in row.items() if v not in (None, "", [])}


def _names_files(column: str) -> bool:
    """Whether a column names a file beside another, as in `mask_file_name`, or several, as in `images_file_names`."""
    return column.endswith((f"_{FILE_NAME}", f"_{FILE_NAME}s"))


def _row(row: Mapping[str, Any]) -> tuple[str, Annotation]:
    """(file, annotation) of a metadata row. Errors: `ValueError`."""
    files = {k.removesuffix("s").removesuffix(f"_{FILE_NAME}"): v for k, v in row.items() if v and _names_files(k)}
    file = row.get(first((FILE_NAME,), row) or "") or next((files[n] for n in IMAGE_NAMES if n in files), None)
    if not isinstance(file, str) or not file:
        raise ValueError(f'no "{FILE_NAME}" with a file name')
    values = dict(row)
    reference = next((files[n] for n in REFERENCE_NAMES if n in files), None)
    if reference and "references" not in values:
        values["references"] = reference if isinstance(reference, list) else [reference]
        if mask := next((files[n] for n in MASK_NAMES if n in files), None):
            values.setdefault("mask", mask)
    if spoken(("caption", "captions"), row) is None:
        texts = {name: value for name, value in row.items() if isinstance(value, (str, list))}
        name = spoken(INSTRUCTION_NAMES if reference else CAPTION_NAMES, texts)
        values |= {} if name is None else {"caption": row[name]}
    return file, annotation(values)
