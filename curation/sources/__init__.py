"""Where samples come from: a folder, a WebDataset tar, or Parquet with embedded bytes; one file each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flywheel.core.errors import UsageError

MAX_BYTES = 256 * 1024 * 1024  # per input: larger files are no single picture


class BadInput(ValueError):
    """This input cannot be used; the message is its quarantine reason."""


@dataclass(frozen=True)
class Input:
    """One input row before it is read: where it is, what is said about it, and the state it was listed in."""

    uri: str
    size: int = 0
    mtime_ns: int = 0
    position: int = 0  # tar: byte offset of the data; parquet: row and picture of the row
    task: str = "t2i"
    stream: str = "t2i"
    captions: tuple[tuple[str, str], ...] = ()  # (kind, text), primary first
    references: tuple[str, ...] = ()  # uris inside the same source
    mask: str = ""  # uri inside the same source, of a picture that is no input of its own
    fault: str | None = None  # known to be unusable when listed: its quarantine reason

    @property
    def caption(self) -> str:
        """Primary text; for ti2i the instruction."""
        return self.captions[0][1] if self.captions else ""

    @property
    def key(self) -> tuple[str, int, int, str]:
        """What makes a later listing recognise this input; captions of t2i are no part of it."""
        return self.uri, self.size, self.mtime_ns, self.caption if self.task == "ti2i" else ""


class Source(Protocol):
    """A listing of inputs and a way to read them."""

    kind: str
    path: Path

    def inputs(self) -> list[Input]:
        """Every input in a stable order. Errors: `UsageError` for what the user can fix."""
        ...

    def read(self, inputs: Sequence[Input]) -> Iterator[bytes | BadInput]:
        """The bytes of each of these inputs, in their order, or why there are none. One at a time in memory."""
        ...

    def read_mask(self, item: Input) -> bytes | BadInput | None:
        """The bytes of the mask of an input that names one, or why there are none; None where it has none after all."""
        ...


def open_source(path: Path, captions: Path | None = None) -> Source:
    """The source at `path`, by what it is. Errors: `UsageError` when missing or of no known kind."""
    from curation.sources.folder import Folder
    from curation.sources.parquet import Parquet
    from curation.sources.tar import Tar

    path = path.expanduser().absolute()
    if not path.exists():
        raise UsageError(f"source {path} does not exist: give a folder of images, a .tar or a .parquet file")
    if path.is_dir():
        return Folder(path, captions)
    suffix = path.suffix.lower()
    if suffix not in (".tar", ".parquet"):
        raise UsageError(f"source {path} is neither a folder nor a .tar or .parquet file")
    if captions:
        raise UsageError(f"--captions goes with a folder; {path.name} carries its captions inside")
    return Tar(path) if suffix == ".tar" else Parquet(path)
