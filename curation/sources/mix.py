"""A source of any mix of files: each part is read by the module of its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from curation.sources import BadInput, Input, Source, files, hub
from curation.sources.files import File
from curation.sources.folder import Folder
from curation.sources.layout import Layout, arranged
from curation.sources.parquet import Parquet
from curation.sources.tar import Tar
from curation.sources.urls.source import UrlList
from curation.sources.urls.store import Store
from curation.sources.zips import open_zip
from flywheel.core.errors import UsageError

_SEPARATORS = ("::", "#")  # between a container's address and what it holds
_OPEN = 4  # containers that stay open


@dataclass(frozen=True)
class Mix:
    """Pictures that are files, then those in tars, Parquet and zips, then URLs; each part as if it were alone.

    A container that cannot be read costs itself.
    """

    address: str
    layout: Layout
    captions: Path | None = None
    store: Store | None = None
    kind: str = "mix"

    def check(self) -> None:
        """Errors: `UsageError` for the captions, or where there is nothing."""
        if not any((self.layout.pictures, self.layout.containers, self.layout.lists)):
            raise UsageError(f"source {self.address} holds no files: give a folder with images in it")
        if self._folder:
            self._folder.check()

    def inputs(self) -> list[Input]:
        """Inputs part by part. Errors: `UsageError` where no part can be read."""
        return list(self.each())

    def each(self) -> Iterator[Input]:
        """As `inputs`, a container at a time."""
        if self._folder:
            yield from self._folder.each()
        faults, readable = list[str](), False
        for file in self.layout.containers:
            try:
                for item in self.container(file.uri).each():
                    readable = True
                    yield item
            except UsageError as error:
                faults.append(str(error))
                yield Input(file.uri, file.size, file.mtime_ns, fault=str(error))
        if faults and not readable and not self._folder and not self._urls:
            raise UsageError(f"source {self.address}: no file can be read; the first: {faults[0]}")
        if self._urls:
            yield from self._urls.each()

    def narrowed(self, inputs: Sequence[Input]) -> Mix:
        """The mix with only the files that these inputs need."""
        wanted = {uri for i in inputs for uri in (i.uri, i.mask, *i.references)}
        holders = {uri[:at] for uri in wanted for at in separators(uri)}
        tars, parquets, zips = (
            tuple(f for f in group if f.uri in holders)
            for group in (self.layout.tars, self.layout.parquets, self.layout.zips)
        )
        pictures = tuple(f for f in self.layout.pictures if f.uri in wanted)
        return replace(self, layout=Layout(pictures, tars, parquets, zips, self.layout.lists))

    def read(self, inputs: Sequence[Input]) -> Iterator[bytes | BadInput]:
        """The bytes of each input, from its part; the parts take turns in the order of the inputs."""
        group: list[Input] = []
        part: Source | None = None
        for item in inputs:
            mine = self._part(item.uri)
            if part is not None and mine is not part:
                yield from part.read(group)
                group = []
            part = mine
            group.append(item)
        if part is not None:
            yield from part.read(group)

    def read_mask(self, item: Input) -> bytes | BadInput | None:
        """The mask's bytes, from the input's part."""
        return self._part(item.uri).read_mask(item)

    @cached_property
    def _files(self) -> dict[str, tuple[File, Callable[[File], Source]]]:
        """Container and what opens it, by address."""
        layout = self.layout
        groups: tuple[tuple[tuple[File, ...], Callable[[File], Source]], ...] = (
            (layout.tars, Tar),
            (layout.parquets, Parquet),
            (layout.zips, open_zip),
        )
        return {f.uri: (f, opener) for group, opener in groups for f in group}

    @cached_property
    def _opened(self) -> dict[str, Source]:
        return {}

    @cached_property
    def _folder(self) -> Folder | None:
        if not self.layout.pictures and not self.captions:
            return None
        return Folder(self.address, self.layout.pictures, self.captions)

    @cached_property
    def _urls(self) -> UrlList | None:
        return UrlList(self.address, self.layout.lists, self.store) if self.layout.lists else None

    def container(self, uri: str) -> Source:
        """The container with this address; the latest few stay open."""
        if uri not in self._opened:
            file, opener = self._files[uri]
            while len(self._opened) >= _OPEN:
                del self._opened[next(iter(self._opened))]
            self._opened[uri] = opener(file)
        return self._opened[uri]

    def _part(self, uri: str) -> Source:
        """The part that holds an input."""
        for at in separators(uri):
            if uri[:at] in self._files:
                return self.container(uri[:at])
        if self._folder and (self._urls is None or self._folder.lists(uri)):
            return self._folder
        if self._urls:
            return self._urls
        raise UsageError(f"source {self.address} has no part that holds {uri}")


def separators(uri: str) -> Iterator[int]:
    """Where a container's address may end in the address of an input."""
    for separator in _SEPARATORS:
        at = uri.find(separator)
        while at >= 0:
            yield at
            at = uri.find(separator, at + 1)


def opened(address: str | Path, captions: Path | None = None, store: Store | None = None) -> Source:
    """The source at an address: of one kind if all its files are, else a mix.

    Errors: `UsageError` if there is nothing, or it is of no known kind.
    """
    place = files.absolute(address)
    layout = arranged(listed(place), captions)
    alone = layout.containers[0] if len(layout.containers) == 1 and not layout.lists and not layout.pictures else None
    if captions and not layout.pictures:
        raise UsageError(f"--captions is for folders; {place} contains its own captions")
    if alone is not None:
        return Mix(place, layout).container(alone.uri)
    if layout.lists and not layout.containers and not layout.pictures:
        return UrlList(place, layout.lists, store)
    if not layout.lists and not layout.containers:
        return Folder(place, layout.pictures, captions)
    return Mix(place, layout, captions, store)


def listed(place: str, most: int | None = None) -> Iterator[File]:
    """The files at an absolute address, or of a data set on the hub; most: as of `find`. Errors: `UsageError`."""
    return hub.find_hub(place) if place.startswith(files.HUB) else files.find(place, most)
