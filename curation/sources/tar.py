"""A WebDataset tar: members that share the name up to the first dot are one sample, image beside .txt or .json."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from curation.sources import MAX_BYTES, BadInput, Input
from curation.sources.captions import Annotation, annotation
from flywheel.core.errors import UsageError

_CAPTION_SUFFIXES = ("json", "txt")  # json first: it can hold more
_LABEL_SUFFIXES = ("cls",)  # class labels of other tools: neither input nor caption
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
                images[entry.name] = self._image(entry)
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

    def read(self, inputs: Sequence[Input]) -> Iterator[bytes | BadInput]:
        """Each member's bytes by its offset."""
        with open(self.path, "rb") as file:
            for item in inputs:
                file.seek(item.position)
                data = file.read(item.size)
                yield data if len(data) == item.size else BadInput("truncated archive member")

    def read_mask(self, item: Input) -> bytes | BadInput:
        """The mask's bytes, by its offset."""
        with open(self.path, "rb") as file:
            member = self._archive.getmember(item.mask.partition("::")[2])
            file.seek(member.offset_data)
            return file.read(member.size)

    @cached_property
    def _archive(self) -> tarfile.TarFile:
        return tarfile.open(self.path, "r:")  # noqa: SIM115 - stays open while the source is read

    def _members(self) -> Iterator[tarfile.TarInfo | tuple[str, str, bytes] | Input]:
        """Image members, (key, suffix, bytes) of caption members, and refused inputs."""
        try:
            with tarfile.open(self.path, "r:") as archive:
                while True:
                    try:
                        member = archive.next()
                    except tarfile.TarError as error:
                        yield self._refused("", f"the archive is damaged after its last readable member: {error}")
                        return
                    if member is None:
                        return
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
            return self._refused(name.encode("utf-8", "backslashreplace").decode(), "member name is not UTF-8")
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
            return member
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
            image, task=note.task, stream=note.stream, captions=note.captions, references=references, mask=mask
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
    for suffix in _CAPTION_SUFFIXES:
        if suffix in members:
            text = members[suffix].decode("utf-8-sig")
            return annotation(json.loads(text)) if suffix == "json" else annotation({"caption": text.strip()})
    return Annotation()
