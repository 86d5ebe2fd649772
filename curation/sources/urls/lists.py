"""Lists of URLs: Parquet, CSV, TSV, JSON Lines or plain text, with the column names of the well-known data sets."""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import pyarrow as pa

from curation.sources import BadInput
from curation.sources.captions import UTF_8, encoding_of, parsed
from curation.sources.columns import CAPTION_NAMES, every, first, spoken
from curation.sources.compressed import open_archive
from curation.sources.csvs import DELIMITERS, is_separator, records, said_delimiter
from curation.sources.files import File
from curation.sources.rights import NAMES
from curation.sources.sidecars import FILE_NAME, METADATA
from flywheel.core.errors import UsageError, first_line

_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
LIST_SUFFIXES = tuple(f".{kind}{c}" for kind in ("csv", "tsv", "jsonl", "ndjson") for c in ("", *_COMPRESSED))
URL_NAMES = (
    "url", "image_url", "img_url", "image_link", "photo_image_url", "contenturl", "jpg_url", "original_url", "link",
)  # fmt: skip
TEXT_NAMES = (*CAPTION_NAMES, "alt_text", "alt", "top_caption", "description", "title")

_PAGE = 10_000  # rows in memory at a time
_HEAD = 64 * 1024  # bytes from which the columns of a text file are told
_LONGEST_URL = 8192

ROWS = pa.schema(
    [
        ("uri", pa.string()),  # the URL, or list#row where there is none
        ("row", pa.int64()),
        ("captions", pa.list_(pa.large_string())),
        ("license", pa.string()),
        ("consent", pa.string()),
        ("fault", pa.string()),  # why there is nothing to fetch
    ]
)


@dataclass(frozen=True)
class UrlColumns:
    """Names of the columns that are read; of the captions, a row has the first that says something.

    header: False where the file has none and the columns were told apart. delimiter: of a CSV file.
    """

    url: str
    captions: tuple[str, ...]
    license: str | None
    consent: str | None
    names: tuple[str, ...]
    header: bool = True
    delimiter: str = ","

    @property
    def read(self) -> list[str]:
        """Columns that are read, each once."""
        return list(dict.fromkeys(c for c in (self.url, *self.captions, self.license, self.consent) if c))


def url_columns(file: File) -> UrlColumns | None:
    """The columns of a list; None if the file has no column of URLs, or holds pictures itself."""
    if file.fault:
        return None
    try:
        if is_parquet(file.name):
            return _of_schema(file)
        head = _head(file)
    except (OSError, UsageError):
        return None  # its fault is said when it is read
    if _plain(file.name) == "txt":
        return UrlColumns("url", ("caption",), None, None, ("url", "caption"), header=False)
    if _plain(file.name) in ("jsonl", "ndjson"):
        return _of_json(head)
    return _of_csv(head, "\t" if _plain(file.name) == "tsv" else DELIMITERS)


def table_holds(file: File) -> str:
    """What a Parquet file holds: urls, names (of the pictures of its folder), pictures or words; "" if unreadable."""
    from curation.sources.column_types import any_picture, has_pictures
    from curation.sources.parquet import open_parquet

    try:
        with open_parquet(file) as opened:
            schema = opened.schema_arrow
    except (OSError, UsageError):
        return ""  # its fault is said when it is read
    if posixpath.basename(file.name) in METADATA and any(name.endswith(FILE_NAME) for name in schema.names):
        return "names"
    if not has_pictures(schema) and _named(schema.names):
        return "urls"
    return "pictures" if any_picture(schema) else "words"


def is_text_list(file: File) -> bool:
    """True for a text file whose first line that is no comment begins with a URL."""
    try:
        return next(filter(None, map(_plain_line, _head(file).splitlines())), b"").startswith((b"http://", b"https://"))
    except (OSError, UsageError):
        return False


def _plain_line(line: bytes) -> bytes:
    """The beginning of a line in lower case; nothing of a comment."""
    text = line.strip(b"\xef\xbb\xbf \t\r\n")[:8].lower()
    return b"" if text.startswith(b"#") else text


def is_parquet(name: str) -> bool:
    """True for a name that says Parquet."""
    return name.lower().endswith((".parquet", ".parq", ".pq"))


def pages(file: File) -> Iterator[pa.RecordBatch]:
    """The rows of a list, some thousands at a time, as `ROWS`; a row without a usable URL has a fault.

    Errors: `UsageError` if the file cannot be read or has no column of URLs.
    """
    columns = url_columns(file)
    if columns is None:
        raise UsageError(f"source {file.uri} has no column of URLs, such as {', '.join(URL_NAMES[:3])}")
    rows = _parquet_rows(file, columns) if is_parquet(file.name) else _text_rows(file, columns)
    page: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        page.append(_normal(file.uri, number, row, columns))
        if len(page) == _PAGE:
            yield pa.RecordBatch.from_pylist(page, ROWS)
            page = []
    yield pa.RecordBatch.from_pylist(page, ROWS)


def _normal(place: str, number: int, row: Mapping[str, Any] | BadInput, columns: UrlColumns) -> dict[str, Any]:
    empty = {"uri": f"{place}#{number}", "row": number, "captions": [], "license": None, "consent": None}
    if isinstance(row, BadInput):
        return empty | {"fault": str(row)}
    url = row.get(columns.url)
    texts = row.get(spoken(columns.captions, row) or "")
    captions = [t for t in (texts if isinstance(texts, list) else [texts]) if isinstance(t, str) and t]
    rights = {k: _text(row.get(c)) if (c := getattr(columns, k)) else None for k in ("license", "consent")}
    if not all(_is_text(t) for t in (*captions, *filter(None, rights.values()))):
        return empty | {"fault": "a text of this row is not valid Unicode"}
    if not isinstance(url, str) or not url.strip():
        return empty | rights | {"captions": captions, "fault": "no URL in this row"}
    url = url.strip()
    if len(url) > _LONGEST_URL or not _is_text(url):
        return empty | rights | {"captions": captions, "fault": "its URL is too long or not valid Unicode"}
    return empty | rights | {"uri": url, "captions": captions, "fault": None}


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value, ensure_ascii=False, default=str)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# Columns -------------------------------------------------------------------------------------------------------------
def _of_schema(file: File) -> UrlColumns | None:
    from curation.sources.column_types import has_pictures
    from curation.sources.parquet import open_parquet

    with open_parquet(file) as opened:
        schema = opened.schema_arrow
    return None if has_pictures(schema) else _named(schema.names)


def _named(names: Iterable[str]) -> UrlColumns | None:
    there = tuple(names)
    url = first(URL_NAMES, there)
    if url is None:
        return None
    rest = [n for n in there if n != url]
    return UrlColumns(url, every(TEXT_NAMES, rest), first(NAMES["license"], rest), first(NAMES["consent"], rest), there)


def _of_json(head: bytes) -> UrlColumns | None:
    for line in head.split(b"\n"):
        try:
            row = parsed(line.decode("utf-8-sig"))
        except ValueError:
            continue
        if isinstance(row, dict) and (columns := _named(row)):
            return columns
    return None


def _of_csv(head: bytes, delimiters: str) -> UrlColumns | None:
    """The columns by the first of the delimiters that leads to some."""
    text = head.decode("utf-8-sig", "replace")
    for delimiter in said_delimiter(text) or delimiters:
        lines = records(io.StringIO(text, newline=""), delimiter)
        names = next((f for _, f in lines if isinstance(f, str) or not _is_above(f)), [])
        if not isinstance(names, str) and (columns := _of_fields([name.strip() for name in names])):
            return replace(columns, delimiter=delimiter)
    return None


def _is_above(fields: list[str]) -> bool:
    """Whether a line above the header says nothing of columns."""
    return not fields or is_separator(fields)


def _of_fields(names: list[str]) -> UrlColumns | None:
    urls = [n for n, field in enumerate(names) if field.lower().startswith(("http://", "https://"))]
    if not urls:
        return _named(names)
    others = [n for n in range(len(names)) if n != urls[0]]
    caption = max(others, key=lambda n: len(names[n]), default=None)
    columns = tuple(f"column {n + 1}" for n in range(len(names)))
    return UrlColumns(
        columns[urls[0]], () if caption is None else (columns[caption],), None, None, columns, header=False
    )


# Rows ----------------------------------------------------------------------------------------------------------------
def _parquet_rows(file: File, columns: UrlColumns) -> Iterator[Mapping[str, Any] | BadInput]:
    from curation.sources.parquet import open_parquet, text_rows

    with open_parquet(file) as opened:
        for group in range(opened.num_row_groups):
            size, done = opened.metadata.row_group(group).num_rows, 0
            try:
                for batch in opened.iter_batches(_PAGE, row_groups=[group], columns=columns.read):
                    for row in text_rows(batch, columns.read):
                        done += 1
                        bad = next((v for v in row.values() if isinstance(v, BadInput)), None)
                        yield bad or row
            except (pa.ArrowException, OSError) as error:
                fault = f"row group {group} cannot be read: {first_line(error)}"
                for _ in range(size - done):
                    yield BadInput(fault)


def _text_rows(file: File, columns: UrlColumns) -> Iterator[Mapping[str, Any] | BadInput]:
    faults: list[str] = []
    try:
        with open_archive(file, faults) as opened:
            kind = _plain(file.name)
            if kind == "txt":
                yield from _lines(opened)
            elif kind in ("jsonl", "ndjson"):
                yield from _json_rows(opened)
            else:
                yield from _csv_rows(opened, columns)
    except OSError as error:
        raise UsageError(f"source {file.uri} cannot be read: {error}") from error
    yield from map(BadInput, faults)


def _lines(opened: BinaryIO) -> Iterator[Mapping[str, Any] | BadInput]:
    for line in _utf8_lines(opened):
        try:
            text = line.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            yield BadInput(f"not UTF-8 text: {error.reason} at byte {error.start}")
            continue
        if text and not text.startswith("#"):
            url, _, caption = text.partition("\t") if "\t" in text else text.partition(" ")
            yield {"url": url, "caption": caption.strip()}


def _json_rows(opened: BinaryIO) -> Iterator[Mapping[str, Any] | BadInput]:
    for line in _utf8_lines(opened):
        try:
            if (text := line.decode("utf-8-sig")).strip():
                row = parsed(text)
                yield row if isinstance(row, dict) else BadInput("not a JSON object")
        except ValueError as error:
            yield BadInput(f"not a JSON line: {error}")


def _csv_rows(opened: BinaryIO, columns: UrlColumns) -> Iterator[Mapping[str, Any] | BadInput]:
    text = io.TextIOWrapper(opened, _encoding(opened), errors="surrogateescape", newline="")
    above = True
    for number, fields in records(text, columns.delimiter):
        if isinstance(fields, str):
            yield BadInput(f"line {number} is not CSV: {fields}")
        elif above and _is_above(fields):
            continue
        elif above and columns.header:
            above = False
        elif fields and len(fields) != len(columns.names):
            yield BadInput(f"line {number} has {len(fields)} fields, the list {len(columns.names)}")
        elif fields:
            above = False
            yield dict(zip(columns.names, fields))


def _head(file: File) -> bytes:
    """The beginning, in UTF-8."""
    with open_archive(file, []) as opened:
        encoding, head = _encoding(opened), opened.read(_HEAD)
        return head if encoding == UTF_8 else head.decode(encoding, "ignore").encode("utf-8", "ignore")


def _encoding(opened: BinaryIO) -> str:
    head = opened.read(4)
    opened.seek(0)
    return encoding_of(head)


def _utf8_lines(opened: BinaryIO) -> Iterator[bytes]:
    """Lines, which end at a newline only."""
    encoding = _encoding(opened)
    if encoding == UTF_8:
        yield from opened
    else:
        text = io.TextIOWrapper(opened, encoding, errors="replace", newline="\n")
        yield from (line.encode("utf-8", "surrogatepass") for line in text)


def _plain(name: str) -> str:
    """Suffix of a name without that of a compression."""
    lower = name.lower()
    return next((lower.removesuffix(c) for c in _COMPRESSED if lower.endswith(c)), lower).rpartition(".")[2]
