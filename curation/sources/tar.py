"""A WebDataset tar: members that share the name up to the first dot are one sample, image beside .txt or .json."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from curation.sources import MAX_BYTES, BadInput, Input
from curation.sources.captions import Annotation, annotation, parsed
from flywheel.core.errors import UsageError

_CAPTION_SUFFIXES = ("json", "txt")  # json first: it can hold more
_LABEL_SUFFIXES = ("cls",)  # class labels of other tools: neither input nor caption
_PICTURE_SUFFIXES = (
    "", "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "tif", "tiff", "bmp", "avif", "heic", "heif", "jxl", "mpo",
)  # fmt: skip
_TEXT_NAMES = ("prompt", "text", "txt")  # keys of a .json that downloaders write the caption under
_BLOCK = 512  # bytes: members start at multiples of it
_MAX_CAPTION = 1024 * 1024  # bytes


@dataclass(frozen=True)
class Tar:
    """Images of an uncompressed tar, read in place.

    Links, devices and paths that leave the archive are quarantined, each as an input. A .json member may name other
    members as `references` and `mask`.
    """

    path: Path
    kind: str = "tar"

    def inputs(self) -> list[Input]:
        """Members in archive order. Errors: `UsageError` for an unreadable, compressed or empty archive."""
        images, texts, refused = self._listing
        if not images and not refused:
            raise UsageError(f"source {self.path} holds no images")
        rows = [self._annotated(name, image, texts, images) for name, image in images.items()]
        masks = {row.mask for row in rows}
        rows = [row for row in rows if row.uri not in masks]
        used = {_key(name)[0] for name in images}
        orphans = [
            self._refused(f"{key}.{next(iter(members))}", "caption without an image")
            for key, members in texts.items()
            if key not in used
        ]
        return rows + refused + orphans

    @cached_property
    def _listing(self) -> tuple[dict[str, Input], dict[str, dict[str, bytes]], list[Input]]:
        """Images by member name, caption members by sample key and suffix, and refused inputs."""
        images: dict[str, Input] = {}
        texts: dict[str, dict[str, bytes]] = {}
        refused: list[Input] = []
        for entry in self._members():
            if isinstance(entry, Input):
                refused.append(entry)
            elif isinstance(entry, tuple):
                key, suffix, data = entry
                texts.setdefault(key, {})[suffix] = data
            else:
                image = self._image(entry)
                if earlier := images.get(entry.name):
                    uri = f"{earlier.uri}@{earlier.position}"
                    refused.append(replace(earlier, uri=uri, fault="a later member of the archive has the same name"))
                images[entry.name] = image
        simple = {_key(name)[0] for name in images if "." not in _key(name)[1]}
        # a.mask.png beside a.jpg is a field of that sample; alone, my.photo.jpg is a picture.
        fields = [name for name in images if "." in _key(name)[1] and _key(name)[0] in simple]
        named = {r for members in texts.values() for r in _named(members)}
        for name in fields:
            if posixpath.basename(name) not in named and name not in named:
                del images[name]
        return images, texts, refused

    def read(self, inputs: Sequence[Input]) -> Iterator[bytes | BadInput]:
        """Each member's bytes by its offset."""
        with open(self.path, "rb") as file:
            for item in inputs:
                file.seek(item.position)
                data = file.read(item.size)
                yield data if len(data) == item.size else BadInput("truncated archive member")

    def read_mask(self, item: Input) -> bytes | BadInput:
        """The mask's bytes, by its offset."""
        images, _, _ = self._listing
        return next(self.read([images[item.mask.partition("::")[2]]]))

    def _members(self) -> Iterator[tarfile.TarInfo | tuple[str, str, bytes] | Input]:
        """Image members, (key, suffix, bytes) of caption members, and refused inputs: one for each damaged stretch.

        Archives that were joined are read on behind the end marker of the first.
        """
        try:
            with tarfile.open(self.path, "r:", ignore_zeros=True) as archive, open(self.path, "rb") as raw:
                expected = 0
                while True:
                    try:
                        member = archive.next()
                    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
                        yield self._refused("", f"the archive is damaged after its last readable member: {error}")
                        return
                    end = self.path.stat().st_size if member is None else member.offset
                    lost = _content_between(raw, expected, end)
                    if lost and member is None and not expected:
                        raise UsageError(f"source {self.path} is not a readable uncompressed tar: no member was found")
                    if lost:
                        yield self._refused("", f"{lost} bytes at offset {expected} are not a readable member")
                    if member is None:
                        if not lost and (end - expected < 2 * _BLOCK or end % _BLOCK):
                            yield self._refused("", f"the archive has no end marker: it is cut off at offset {end}")
                        return
                    if member.size < 0:
                        yield self._refused(_shown(member.name), "the member's header has a negative size")
                        return
                    expected = member.offset_data + (-(-member.size // _BLOCK) * _BLOCK if member.isreg() else 0)
                    if not member.isdir() and (entry := self._entry(archive, member)) is not None:
                        yield entry
        except (tarfile.TarError, OSError) as error:
            raise UsageError(f"source {self.path} is not a readable uncompressed tar: {error}") from error

    def _entry(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo
    ) -> tarfile.TarInfo | tuple[str, str, bytes] | Input | None:
        name = member.name
        try:
            name.encode()
        except UnicodeEncodeError:
            return self._refused(_shown(name), "member name is not UTF-8")
        parts = posixpath.normpath(name).split("/")
        if name.startswith("/") or ".." in parts:
            return self._refused(name, "path traversal: the member's name leaves the archive")
        if any(p.startswith(".") for p in parts):
            return None  # hidden, as in folders
        if not member.isreg():
            return self._refused(name, "link or special file in an archive: refused")
        if member.sparse is not None:
            return self._refused(name, "sparse archive member: refused")
        key, suffix = _key(name)
        if suffix in _LABEL_SUFFIXES:
            return None
        if suffix not in _CAPTION_SUFFIXES:
            return member if suffix.rpartition(".")[2] in _PICTURE_SUFFIXES else None
        if member.size > _MAX_CAPTION:
            return self._refused(name, f"caption member of {member.size} bytes is over {_MAX_CAPTION}")
        file = archive.extractfile(member)
        return key, suffix, file.read() if file else b""

    def _image(self, member: tarfile.TarInfo) -> Input:
        fault = f"too large: {member.size} bytes is over {MAX_BYTES}" if member.size > MAX_BYTES else None
        return Input(self._uri(member.name), member.size, self.path.stat().st_mtime_ns, member.offset_data, fault=fault)

    def _annotated(
        self, name: str, image: Input, texts: dict[str, dict[str, bytes]], images: dict[str, Input]
    ) -> Input:
        try:
            note = _annotation(texts.get(_key(name)[0], {}))
        except ValueError as error:
            return replace(image, fault=f"unreadable caption member: {error}")
        named = (*note.references, *filter(None, [note.mask]))
        names = [posixpath.normpath(posixpath.join(posixpath.dirname(name), r)) for r in named]
        missing = [r for r, n in zip(named, names) if n not in images]
        if missing:
            return replace(image, fault=f"reference {missing[0]!r} is not in the archive")
        uris = tuple(images[n].uri for n in names)
        references, mask = uris[: len(note.references)], uris[-1] if note.mask else ""
        return replace(
            image,
            task=note.task,
            stream=note.stream,
            captions=note.captions,
            references=references,
            mask=mask,
            rights=note.rights,
        )

    def _uri(self, name: str) -> str:
        return f"{self.path}::{name}"

    def _refused(self, name: str, reason: str) -> Input:
        return Input(self._uri(name), mtime_ns=self.path.stat().st_mtime_ns, fault=reason)


def _key(name: str) -> tuple[str, str]:
    """(sample key, lower-case suffix): WebDataset splits at the first dot of the last path part."""
    folder, base = posixpath.split(posixpath.normpath(name))
    stem, _, suffix = base.partition(".")
    return posixpath.join(folder, stem), suffix.lower()


def _annotation(members: dict[str, bytes]) -> Annotation:
    """The annotation of a sample's caption members; a .json that holds no text leaves the caption to the .txt."""
    row = _row(members)
    if not row.get("caption") and not row.get("captions"):
        text = next((row[name] for name in _TEXT_NAMES if isinstance(row.get(name), str)), None)
        if text is None and "txt" in members:
            text = members["txt"].decode("utf-8-sig").strip()
        if text is not None:
            row = row | {"caption": text}
    return annotation(row)


def _row(members: dict[str, bytes]) -> dict[str, Any]:
    row = parsed(members["json"].decode("utf-8-sig")) if "json" in members else {}
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    return row


def _named(members: dict[str, bytes]) -> list[str]:
    """Members that an annotation names as references or mask."""
    try:
        row = _row(members)
        references = row.get("references") or []
        return [r for r in (*references, row.get("mask")) if isinstance(r, str)]
    except (ValueError, TypeError):
        return []  # said when the sample is read


def _content_between(raw: BinaryIO, start: int, end: int) -> int:
    """Number of bytes between two offsets up to the last that is not zero: 0 for mere padding."""
    raw.seek(start)
    last, place = 0, start
    while place < end and (part := raw.read(min(2**20, end - place))):
        place += len(part)
        if kept := part.rstrip(b"\0"):
            last = place - len(part) + len(kept) - start
    return last


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
