"""Sources of samples: folders of pictures, tars, Parquet, zips and URL lists, one module each, and mixes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from curation.sources.rights import Rights

if TYPE_CHECKING:
    from curation.sources.urls.store import Store

MAX_BYTES = 256 * 1024 * 1024  # per input: a larger file is not a single picture


class BadInput(ValueError):
    """This input cannot be used; the message is its quarantine reason."""


@dataclass(frozen=True)
class Input:
    """One input before it is read: its place, its annotation, and the file state when it was listed."""

    uri: str
    size: int = 0
    mtime_ns: int = 0
    position: int = 0  # tar: byte offset of the data; parquet: row and picture of the row
    task: str = "t2i"
    stream: str = "t2i"
    captions: tuple[tuple[str, str], ...] = ()  # (kind, text), primary first
    references: tuple[str, ...] = ()  # URIs inside the same source
    mask: str = ""  # URI inside the same source of a picture that is not an input itself
    rights: Rights = Rights()
    fault: str | None = None  # quarantine reason, if it was already unusable when listed

    @property
    def caption(self) -> str:
        """Primary text; for ti2i, the instruction."""
        return self.captions[0][1] if self.captions else ""

    @property
    def key(self) -> tuple[str | int, ...]:
        """Identity of the input across listings: of ti2i also what it asks for, of which pictures."""
        told = (self.caption, *self.references) if self.task == "ti2i" else ()
        return self.uri, self.size, self.mtime_ns, *told


class Source(Protocol):
    """A listing of inputs and a way to read them."""

    @property
    def kind(self) -> str:
        """folder, tar, parquet, zip, url list or mix."""
        ...

    @property
    def address(self) -> str:
        """Absolute path or URL, as the user gave it."""
        ...

    def check(self) -> None:
        """A look at the beginning. Errors: `UsageError` for faults that the user can fix before anything is read."""
        ...

    def inputs(self) -> list[Input]:
        """Every input in a stable order. Errors: `UsageError` for faults that the user can fix."""
        ...

    def each(self) -> Iterator[Input]:
        """As `inputs`, with those of one file in memory at a time."""
        ...

    def narrowed(self, inputs: Sequence[Input]) -> Source:
        """The same source for another process that reads only these inputs."""
        ...

    def read(self, inputs: Sequence[Input]) -> Iterator[bytes | BadInput]:
        """The bytes of each of these inputs, in order, or why there are none. One at a time in memory."""
        ...

    def read_mask(self, item: Input) -> bytes | BadInput | None:
        """The bytes of the mask that the input names, or why there are none; None if the row has no mask after all."""
        ...


def open_source(address: str | Path, captions: Path | None = None, store: Store | None = None) -> Source:
    """The source at a path, glob or URL; store: where the pictures of URL lists are.

    Errors: `UsageError` if it is missing, empty or of no known kind.
    """
    from curation.sources.mix import opened

    return opened(address, captions, store)
