"""Captions from users: JSONL beside a folder, or a JSON or text file beside an image; one rule for all sources."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from curation.sources.columns import CAPTION_NAMES, TEXT_NAMES, first, says, spoken
from curation.sources.rights import Rights, rights_of
from flywheel.core.schema import CAPTION_KINDS

SUFFIXES = ("json", "txt", "caption")  # of files beside a picture; json first: it can hold more
KINDS = (*CAPTION_KINDS, "instruction")
STREAMS = ("t2i", "ti2i", "synthetic")
UTF_8 = "utf-8-sig"  # with its mark or without
_MARKS = {  # byte-order marks; the longer ones first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_DIGITS = 4000  # of a whole number: Python refuses more, and no caption needs them


@dataclass(frozen=True)
class Annotation:
    """A user's annotation of one image: texts with their kind (the first is primary), references, stream, rights."""

    captions: tuple[tuple[str, str], ...] = ()  # (kind, text)
    references: tuple[str, ...] = ()  # names as the user wrote them; any reference makes the row an edit pair (ti2i)
    stream: str = "t2i"
    mask: str = ""  # name of a picture that is white where the edit may have changed the target
    rights: Rights = Rights()

    @property
    def task(self) -> str:
        """ti2i if there are references, else t2i."""
        return "ti2i" if self.references else "t2i"


def annotation(row: Any) -> Annotation:
    """Read `{"caption": str}` or `{"captions": [{"kind", "text"}]}`, with optional `references`, `mask`, `stream`.

    Either may be a text, or a list of texts and of such objects; without them a `prompt` or `text` is the caption.
    Letter case of these keys does not matter. Keys that state rights are those of `curation.sources.rights`.

    Errors: `ValueError` that names the key.
    """
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    references = row.get("references") or []
    if not isinstance(references, list) or not all(isinstance(r, str) for r in references):
        raise ValueError('"references" is not a list of file names')
    stream = "ti2i" if references else row.get("stream", "t2i")
    if stream not in STREAMS:
        raise ValueError(f'"stream" is not one of {", ".join(STREAMS)}')
    if stream == "ti2i" and not references:
        raise ValueError('"stream" is ti2i without "references"')
    mask = row.get("mask") or ""
    if not isinstance(mask, str) or (mask and not references):
        raise ValueError('"mask" is not a file name, or there are no "references"')
    texts = _texts(row, "instruction" if references else "general")
    return Annotation(texts, tuple(references), stream, mask, rights_of(row))


def _texts(row: dict[str, Any], kind: str) -> tuple[tuple[str, str], ...]:
    texts: list[tuple[str, str]] = []
    for name in (first(("caption",), row), first(("captions",), row)):
        if name is not None and (row[name] is not None or (name.lower() == "caption" and not text_key(row))):
            texts += _listed(name, row[name], kind)
    if not any(text.strip() for _, text in texts) and (name := text_key(row)):
        texts = _listed(name, row[name], kind)
    if not all(_is_text(text) for _, text in texts):
        raise ValueError("a caption is not valid Unicode")
    return tuple(dict.fromkeys(texts))


def _listed(name: str, value: Any, kind: str) -> list[tuple[str, str]]:
    """(kind, text) of each entry under a key: a text, an object with one, or a list of them. Nulls in it are none."""
    texts = []
    if name.lower() == "captions" and isinstance(value, str) and value.lstrip()[:1] == "[":
        with suppress(ValueError):  # a column of text that holds a list, as CSV files do
            value = parsed(value)
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(value, list) and entry is None:
            continue
        fields = entry if isinstance(entry, dict) else {"text": entry}
        text = fields.get(first(CAPTION_NAMES, fields) or "")
        if not isinstance(text, str):
            wanted = "a string" if name.lower() == "caption" else 'a list of {"kind", "text"}'
            raise ValueError(f'"{name}" is not {wanted}')
        if fields.get("kind", kind) not in KINDS:
            raise ValueError(f"caption kind {fields['kind']!r} is not one of {', '.join(KINDS)}")
        texts.append((fields.get("kind", kind), text))
    return texts


def text_key(row: Mapping[str, Any]) -> str | None:
    """The key under which a downloader wrote the caption, where there is one."""
    return spoken(
        TEXT_NAMES, {name: value for name, value in row.items() if isinstance(value, str) or _all_text(value)}
    )


def _all_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def beside(contents: Mapping[str, bytes]) -> Annotation:
    """The annotation in the caption files of one picture, by suffix; a .json that holds no text leaves it to the other.

    Errors: `ValueError`.
    """
    row = parsed(text_of(contents["json"])) if "json" in contents else {}
    if isinstance(row, (str, list)):
        row = {"caption": row}
    if not isinstance(row, dict):
        raise ValueError("neither a JSON object nor a text")
    if not any(says(row.get(first((name,), row) or "")) for name in ("caption", "captions")) and not text_key(row):
        plain = next((contents[s] for s in SUFFIXES[1:] if s in contents), None)
        if plain is not None:
            row = row | {"caption": text_of(plain).strip()}
    return annotation(row)


def text_of(content: bytes) -> str:
    """Text from outside: by its byte-order mark, else UTF-8. Errors: `UnicodeDecodeError`, a `ValueError`."""
    return as_utf8(content).decode(UTF_8)


def as_utf8(content: bytes) -> bytes:
    """Text that begins with the mark of UTF-16 or UTF-32 in UTF-8; other bytes as they are."""
    encoding = encoding_of(content)
    try:
        return content if encoding == UTF_8 else content.decode(encoding).encode()
    except UnicodeError:  # damaged: as UTF-8 it is not readable either, which the caller says
        return content


def encoding_of(head: bytes) -> str:
    """Encoding of a text that begins with these bytes: by its byte-order mark, else UTF-8."""
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), UTF_8)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: allowed in JSON but not in UTF-8
        return False
    return True


def parsed(text: str) -> Any:
    """The JSON value of a text from outside. Errors: `ValueError`."""
    try:
        # Not strict: control characters may stand in texts, where they are removed later.
        # NaN is what tables write where nothing is.
        return json.loads(text, strict=False, parse_int=_whole, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _whole(digits: str) -> float:
    return int(digits) if len(digits) < _DIGITS else float(digits)


@dataclass(frozen=True)
class OddLine:
    """A line of a captions file that cannot be used, and why."""

    number: int
    fault: str


def read_captions(content: bytes) -> Iterator[tuple[int, str, Annotation] | OddLine]:
    """(line number, file name, annotation) of each line of a captions JSONL; a line that is wrong costs itself.

    Lines end at a newline only. A JSON array of the same objects is read too; its entries count as lines.
    """
    for number, row in json_rows(content):
        if isinstance(row, UnicodeDecodeError):
            yield OddLine(number, f"not UTF-8 text: {row.reason} at byte {row.start}")
            continue
        try:
            if isinstance(row, ValueError):
                raise row
            if not isinstance(row, dict) or not isinstance(row.get("file"), str) or not row["file"]:
                raise ValueError('no "file" key with a file name')
            yield number, row["file"], annotation(row)
        except ValueError as error:
            yield OddLine(number, f"{error}; expected a JSON object with file and caption")


def json_rows(content: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value or the error) of each line, or of each entry of a JSON array, in UTF-8, -16 or -32."""
    content = as_utf8(content)
    if content.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        with suppress(ValueError):
            rows = parsed(text_of(content))
            yield from enumerate(rows, 1)
            return
    for number, line in enumerate(io.BytesIO(content), 1):
        try:
            if (text := line.decode("utf-8-sig")).strip():
                yield number, parsed(text)
        except ValueError as error:
            yield number, error
