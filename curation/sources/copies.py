"""Temporary local copies of files that cannot be read in place; only the latest few are kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from flywheel.core.files import digest
from flywheel.core.scratch import Scratch

_SPOOLED = 2  # copies that are kept
NOTE = ".note"  # suffix of what the writer of a copy has to say about it


def spooled(version: str, form: str, write: Callable[[Path], object]) -> Path:
    """What `write` writes to the path it is given: made once per version of a file and form."""
    return _spool().place(digest(form, version), write)


class _Spool:
    """A temporary folder of the latest few copies."""

    def __init__(self) -> None:
        self._folder = Scratch()
        self._kept: list[Path] = []

    def place(self, key: str, write: Callable[[Path], object]) -> Path:
        """Path of a copy, which is written if it is not there; the oldest make room for it."""
        place = self._folder.path / key
        if place not in self._kept:
            part = place.with_suffix(".part")
            write(part)
            os.replace(part, place)
            for old in self._kept[: len(self._kept) - _SPOOLED + 1]:
                old.unlink(missing_ok=True)  # a reader that has it open keeps it
                old.with_suffix(NOTE).unlink(missing_ok=True)
            self._kept = [*self._kept[-_SPOOLED + 1 :], place]
        return place


@lru_cache(maxsize=1)
def _spool() -> _Spool:
    return _Spool()
