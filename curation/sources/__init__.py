"""Sources of samples: a folder, a WebDataset tar, or Parquet with embedded bytes; one module each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from curation.sources.rights import Rights
from flywheel.core.errors import UsageError

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
    def key(self) -> tuple[str, int, int, str]:
        """Identity of the input across listings; captions of t2i are not part of it."""
        return self.uri, self.size, self.mtime_ns, self.caption if self.task == "ti2i" else ""


class Source(Protocol):
    """A listing of inputs and a way to read them."""

    @property
    def kind(self) -> str:
        """folder, tar or parquet."""
        ...

    @property
    def path(self) -> Path:
        """Absolute path."""
        ...

    def inputs(self) -> list[Input]:
        """Every input in a stable order. Errors: `UsageError` for faults that the user can fix."""
        ...

    def read(self, inputs: Sequence[Input]) -> Iterator[bytes | BadInput]:
        """The bytes of each of these inputs, in order, or why there are none. One at a time in memory."""
        ...

    def read_mask(self, item: Input) -> bytes | BadInput | None:
        """The bytes of the mask that the input names, or why there are none; None if the row has no mask after all."""
        ...


def open_source(path: Path, captions: Path | None = None) -> Source:
    """The source at `path`. Errors: `UsageError` if it is missing or of an unknown kind."""
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
        raise UsageError(f"--captions is for folders; {path.name} contains its own captions")
    return Tar(path) if suffix == ".tar" else Parquet(path)
