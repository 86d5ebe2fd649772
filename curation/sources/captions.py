"""Captions from users: JSONL beside a folder, or a JSON member beside an image in a tar."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.sources.rights import Rights, rights_of
from flywheel.core.errors import UsageError
from flywheel.core.schema import CAPTION_KINDS

KINDS = (*CAPTION_KINDS, "instruction")
STREAMS = ("t2i", "ti2i", "synthetic")


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

    Keys that state rights are those of `curation.sources.rights`.

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
    if "caption" in row:
        if not isinstance(row["caption"], str):
            raise ValueError('"caption" is not a string')
        texts.append((kind, row["caption"]))
    for entry in row.get("captions") or []:
        if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
            raise ValueError('"captions" is not a list of {"kind", "text"}')
        if entry.get("kind", kind) not in KINDS:
            raise ValueError(f"caption kind {entry['kind']!r} is not one of {', '.join(KINDS)}")
        texts.append((entry.get("kind", kind), entry["text"]))
    if not all(_is_text(text) for _, text in texts):
        raise ValueError("a caption is not valid Unicode")
    return tuple(texts)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: allowed in JSON but not in UTF-8
        return False
    return True


def parsed(text: str) -> Any:
    """The JSON value of a text from outside. Errors: `ValueError`."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


@dataclass(frozen=True)
class OddLine:
    """A line of a captions file that cannot be used, and why."""

    number: int
    fault: str


def read_captions(path: Path) -> Iterator[tuple[int, str, Annotation] | OddLine]:
    """(line number, file name, annotation) of each line of a captions JSONL; a line that is wrong costs itself.

    Lines end at a newline only. Errors: `UsageError` for a file that cannot be read.
    """
    try:
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _line(number, line)
    except OSError as error:
        raise UsageError(f"captions file {path} cannot be read: {error.strerror}") from error


def _line(number: int, line: bytes) -> tuple[int, str, Annotation] | OddLine:
    try:
        row = parsed(line.decode("utf-8-sig"))
        if not isinstance(row, dict) or not isinstance(row.get("file"), str) or not row["file"]:
            raise ValueError('no "file" key with a file name')
        return number, row["file"], annotation(row)
    except UnicodeDecodeError as error:
        return OddLine(number, f"not UTF-8 text: {error.reason} at byte {error.start}")
    except ValueError as error:
        return OddLine(number, f"{error}; expected a JSON object with file and caption")
