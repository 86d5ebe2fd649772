"""The answers of an unfinished part, each written as soon as it is there: after a kill, none is asked for again.

A record is the length of its JSON and of its picture (two 4-byte numbers), the CRC-32 of both, the JSON, the picture.
A record that a kill cut off ends the journal, and is overwritten.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO

from curation.sources.urls import Outcome

_HEAD = struct.Struct("<III")


class Journal:
    """Appends outcomes by URL; `places` says where each is. Opening drops a record that was cut off."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = open(path, "a+b")  # noqa: SIM115 - closed by `close`
        self.places: dict[str, int] = {}
        end = 0
        for place, uri, size in _records(self._file):
            self.places[uri], end = place, place + size
        self._file.truncate(end)

    def add(self, uri: str, outcome: Outcome) -> None:
        """Append; the record is in the operating system's hands on return."""
        text = json.dumps([uri, asdict(replace(outcome, image=None))]).encode()
        image = outcome.image or b""
        self.places[uri] = self._file.seek(0, 2)
        self._file.write(_HEAD.pack(len(text), len(image), zlib.crc32(image, zlib.crc32(text))) + text + image)
        self._file.flush()

    def read(self, uri: str) -> Outcome:
        """The outcome of a URL. Errors: `KeyError`."""
        self._file.seek(self.places[uri])
        text_size, image_size, _ = _HEAD.unpack(self._file.read(_HEAD.size))
        _, value = json.loads(self._file.read(text_size))
        image = self._file.read(image_size) if value["status"] == "fetched" else None
        return Outcome(**value | {"image": image, "directives": tuple(value["directives"])})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _records(file: BinaryIO) -> Iterator[tuple[int, str, int]]:
    """(place, URL, size) of each whole record."""
    file.seek(0)
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        text_size, image_size, checked = _HEAD.unpack(head)
        text, image = file.read(text_size), file.read(image_size)
        if len(image) < image_size or zlib.crc32(image, zlib.crc32(text)) != checked:
            return
        size = _HEAD.size + text_size + image_size
        yield file.tell() - size, json.loads(text)[0], size
