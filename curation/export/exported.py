"""A finished export: what its index, its metadata and its card tell of it."""

from __future__ import annotations

from dataclasses import dataclass

from curation.export.formats import FORMATS
from curation.export.request import Request


@dataclass(frozen=True)
class Exported:
    """A finished export: counts of rows and bytes; left_out: rows without a caption of the chosen kind."""

    folder: str
    request: Request
    rows: int
    bytes: int
    left_out: int
    parts: int
    licences: dict[str, int]
    tasks: dict[str, int]
    written: int  # parts that this call wrote; the others were there

    @property
    def load(self) -> tuple[str, ...]:
        """The lines of Python that load it in its folder."""
        return tuple(FORMATS[self.request.format].loading(self.parts))
