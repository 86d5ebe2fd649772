"""A WebDataset tar, compressed or not: members with the same name up to the first dot are one sample.

An image is beside a .txt, .json or .caption.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, BinaryIO

from curation.sources import MAX_BYTES, BadInput, Input, captions
from curation.sources.asking import reason
from curation.sources.columns import CAPTION_NAMES, IMAGE_NAMES
from curation.sources.compressed import open_archive
from curation.sources.files import File
from curation.sources.layout import NESTED, is_container
from curation.sources.sidecars import composed
from curation.sources.tar_gaps import Gaps
from flywheel.core.errors import UsageError

_LABEL_SUFFIXES = ("cls",)  # class labels of other tools: neither input nor caption
_PICTURE_SUFFIXES = (
    "", "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "tif", "tiff", "bmp", "avif", "heic", "heif", "jxl", "mpo",
)  # fmt: skip
_HEAD_BYTES, HEAD_MEMBERS = 32 * 1024 * 1024, 1000  # of a look
_MAX_CAPTION = 1024 * 1024  # bytes
_TWICE = "a later member of the archive has the same name"
_DIGITS = re.compile(rb"\d{300}")  # more than the name of a file has


class _Member(tarfile.TarInfo):
    """A member whose header is checked first, because tarfile of older patch levels of Python loops on some.

    Negative sizes make it read the same header for ever (CVE-2025-8194), long runs of digits in an extended header
    take quadratic time (CVE-2024-6232). Nothing is ever extracted, so faults of extraction do not concern us.
    """

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.InvalidHeaderError("a negative size")  # type: ignore[attr-defined]
        rounded: int = super()._block(count)  # type: ignore[misc]
        return rounded

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        file: Any = archive.fileobj
        start = file.tell()
        if self.size > _MAX_CAPTION or _DIGITS.search(file.read(max(0, self.size))):
            raise tarfile.InvalidHeaderError("an extended header is too long")  # type: ignore[attr-defined]
        file.seek(start)
        member: tarfile.TarInfo = super()._proc_pax(archive)  # type: ignore[misc]
        member.offset = self.offset  # of the whole: tarfile forgets it for headers that concern all members
        return member


@dataclass(frozen=True)
class Tar:
    """Images of a tar: read in place, or from a temporary copy if it is compressed or its server has no ranges.

    Links, devices and paths that leave the archive are quarantined, each as an input. A .json member may name other
    members as `references` and `mask`.
    """

    file: File
    kind: str = "tar"
    head: bool = False  # only the first members, for a look at it
    _faults: list[str] = field(default_factory=list, compare=False, repr=False)  # of the compression
    _unread: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def address(self) -> str:
        """Path or URL of the archive."""
        return self.file.uri

    def check(self) -> None:
        """Errors: `UsageError` if it cannot be opened."""
        try:
            with self.open():
                pass
        except OSError as error:
            raise UsageError(f"source {self.file.uri} cannot be read: {reason(error)}") from error

    def inputs(self) -> list[Input]:
        """Members in archive order. Errors: `UsageError` for an unreadable or empty archive."""
        images, texts, refused = self._listing
        if not images and not refused:
            raise UsageError(f"source {self.file.uri} holds no images")
        rows = [self._annotated(name, image, texts, images) for name, image in images.items()]
        masks = {row.mask for row in rows}
        rows = [row for row in rows if row.uri not in masks]
        used = {key for name in images for key in (_stem(name), _key(name)[0])}
        orphans = [
            self._refused(f"{key}.{next(iter(members))}", "caption without an image")
            for key, members in texts.items()
            if key not in used
        ]
        return rows + refused + orphans

    @cached_property
    def unread(self) -> dict[str, int]:
        """Fields that are neither a picture nor its caption: suffix → members."""
        _ = self._listing
        return dict(self._unread)

    def each(self) -> Iterator[Input]:
        """As `inputs`: a sample's members may be anywhere, so those of one archive are in memory."""
        yield from self.inputs()

    def narrowed(self, inputs: Sequence[Input]) -> Tar:
        """The archive, unopened."""
        return Tar(self.file, self.kind)

    @cached_property
    def _listing(self) -> tuple[dict[str, Input], dict[str, dict[str, bytes]], list[Input]]:
        """Images by normal name (`a.png` of ./a.png), caption members by sample key and suffix, and refused inputs."""
        images: dict[str, Input] = {}
        texts: dict[str, dict[str, bytes]] = {}
        refused: list[Input] = []
        twice: list[str] = []
        self._unread.clear()
        for entry in islice(self._members(), HEAD_MEMBERS if self.head else None):
            if isinstance(entry, Input):
                refused.append(entry)
            elif isinstance(entry, tuple):
                key, suffix, data = entry
                if texts.setdefault(key, {}).get(suffix, data) != data:
                    twice.append(f"{key}.{suffix}")
                texts[key][suffix] = data
            else:
                image = self._image(entry)
                name = posixpath.normpath(entry.name)
                if earlier := images.get(name):
                    uri = f"{earlier.uri}@{earlier.position}"
                    refused.append(replace(earlier, uri=uri, fault=_TWICE))
                images[name] = image
        simple = {_key(name)[0] for name in images if "." not in _key(name)[1]}
        # a.image.png is the picture of a sample that has no a.png; a.caption.txt is its caption then.
        pictures = {_key(name)[0]: name for name in images if _field(name) in IMAGE_NAMES} | dict.fromkeys(simple, "")
        for key, name in pictures.items():
            for word in CAPTION_NAMES if name else ():
                if members := texts.pop(f"{key}.{word}", None):
                    texts[_stem(name)] = members | texts.get(_stem(name), {})
        # a.mask.png beside a.jpg is a field of that sample; alone, or with its own caption, my.photo.jpg is a picture.
        fields = [
            name
            for name in images
            if _field(name) and pictures.get(_key(name)[0], name) != name and not _has_text(texts.get(_stem(name), {}))
        ]
        named = {r for members in texts.values() for r in _named(members)}
        nested = {i.uri: _key(self._name(i.uri)) for i in refused if i.fault == NESTED}
        of_samples = {uri: suffix for uri, (key, suffix) in nested.items() if key in pictures}
        refused = [i for i in refused if i.uri not in of_samples]
        for suffix in of_samples.values():
            self._leave(suffix)
        for name in fields:
            if posixpath.basename(name) not in named and name not in named:
                del images[name]
                self._leave(_key(name)[1])
        stems = {_stem(name) for name in images}
        forms = {composed(stem): stem for stem in stems}
        for key in [k for k in texts if k not in stems and composed(k) in forms]:
            own = forms[composed(key)]
            texts[own] = texts.pop(key) | texts.get(own, {})
        for key in [k for k in texts if k not in stems and any(p in stems for p in _prefixes(k))]:
            for suffix in texts.pop(key):
                self._leave(f"{_key(key)[1]}.{suffix}")
        again = {_stem(self._name(i.uri)) for i in refused if i.fault == _TWICE}
        refused += [self._refused(f"{name}@", _TWICE) for name in twice if _stem(name) not in again]
        return images, texts, refused

    def _leave(self, suffix: str) -> None:
        self._unread[suffix] = self._unread.get(suffix, 0) + 1

    def read(self, inputs: Sequence[Input]) -> Iterator[bytes | BadInput]:
        """Each member's bytes by its offset."""
        with self.open() as file:
            for item in inputs:
                file.seek(item.position)
                data = file.read(item.size)
                yield data if len(data) == item.size else BadInput("truncated archive member")

    def read_mask(self, item: Input) -> bytes | BadInput:
        """The mask's bytes, by its offset."""
        images, _, _ = self._listing
        return next(self.read([images[posixpath.normpath(self._name(item.mask))]]))

    def _members(self) -> Iterator[tarfile.TarInfo | tuple[str, str, bytes] | Input]:
        """Image members, (key, suffix, bytes) of caption members, and refused inputs: one for each damaged stretch.

        Archives that were joined are read on behind the end marker of the first.
        """
        try:
            with (
                self.open() as file,
                self.open() as raw,
                tarfile.open(fileobj=file, mode="r:", ignore_zeros=True, tarinfo=_Member) as archive,
            ):
                gaps = Gaps(raw)
                while True:
                    try:
                        member = archive.next()
                    except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
                        why = "; ".join([str(error), *self._faults])
                        yield self._refused("", f"the archive is damaged after its last readable member: {why}")
                        return
                    if member is None and not gaps.expected:
                        raise UsageError(f"source {self.file.uri} is not a readable tar: no member was found")
                    lost = gaps.before(member, archive.offset)
                    if lost and not (member is None and self._faults):
                        yield self._refused("", lost)
                    if member is None:
                        yield from (self._refused("", fault) for fault in self._faults)
                        return
                    if member.size < 0:
                        yield self._refused(_shown(member.name), "the member's header has a negative size")
                        return
                    if not member.isdir() and (entry := self._entry(archive, member)) is not None:
                        yield entry
        except (tarfile.TarError, OSError, RecursionError) as error:
            why = "; ".join([*self._faults, str(error)])
            raise UsageError(f"source {self.file.uri} is not a readable tar: {why}") from error

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
        suffix = _key(name)[1]
        last = suffix.rpartition(".")[2]
        if last not in captions.SUFFIXES:
            if self.reads(suffix):
                return member
            if is_container(name):
                return self._refused(name, NESTED)
            if suffix not in _LABEL_SUFFIXES:
                self._leave(suffix)
            return None
        if member.size > _MAX_CAPTION:
            if last != suffix:  # a field, not the caption of a picture
                self._leave(suffix)
                return None
            return self._refused(name, f"caption member of {member.size} bytes is over {_MAX_CAPTION}")
        file = archive.extractfile(member)
        return _stem(name), last, file.read() if file else b""

    def _image(self, member: tarfile.TarInfo) -> Input:
        fault = f"too large: {member.size} bytes is over {MAX_BYTES}" if member.size > MAX_BYTES else None
        return Input(self._uri(member.name), member.size, self.file.mtime_ns, member.offset_data, fault=fault)

    def _annotated(
        self, name: str, image: Input, texts: dict[str, dict[str, bytes]], images: dict[str, Input]
    ) -> Input:
        try:
            note = captions.beside(texts.get(_stem(name)) or texts.get(_key(name)[0], {}))
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

    def open(self) -> BinaryIO:
        """The archive, uncompressed. Errors: `OSError`."""
        return open_archive(self.file, self._faults, _HEAD_BYTES if self.head else None)

    @staticmethod
    def reads(suffix: str) -> bool:
        """Whether members with this suffix are pictures or captions."""
        return suffix in captions.SUFFIXES or suffix.rpartition(".")[2] in _PICTURE_SUFFIXES

    def _uri(self, name: str) -> str:
        return f"{self.file.uri}::{name}"

    def _name(self, uri: str) -> str:
        """The member's name in an address of `_uri`."""
        return uri.removeprefix(self._uri(""))

    def _refused(self, name: str, reason: str) -> Input:
        return Input(self._uri(name), mtime_ns=self.file.mtime_ns, fault=reason)


def _key(name: str) -> tuple[str, str]:
    """(sample key, lower-case suffix): WebDataset splits at the first dot of the last path part."""
    folder, base = posixpath.split(posixpath.normpath(name))
    stem, _, suffix = base.partition(".")
    return posixpath.join(folder, stem), suffix.lower()


def _field(name: str) -> str:
    """The field of its sample that a member is, without its suffix: `image` of a.image.png, nothing of a.png."""
    return _key(name)[1].rpartition(".")[0]


def _stem(name: str) -> str:
    """The name without its last suffix: what a picture and its caption share, whatever dots they hold."""
    folder, base = posixpath.split(posixpath.normpath(name))
    return posixpath.join(folder, base.rpartition(".")[0] or base)


def _has_text(members: dict[str, bytes]) -> bool:
    """Whether caption members of one picture hold more than a .json, which may tell of a field."""
    return any(suffix != "json" for suffix in members)


def _prefixes(key: str) -> Iterator[str]:
    """The key without one, two, … of its last dotted parts: of whose picture a caption member may be a field."""
    while (shorter := _stem(key)) != key:
        yield shorter
        key = shorter


def _named(members: dict[str, bytes]) -> list[str]:
    """Members that an annotation names as references or mask."""
    try:
        row = captions.parsed(captions.text_of(members["json"])) if "json" in members else {}
        references = row.get("references") or []
        return [posixpath.normpath(r) for r in (*references, row.get("mask")) if isinstance(r, str)]
    except (ValueError, TypeError, AttributeError):
        return []  # said when the sample is read


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
