"""Paths in a settings file: they are relative to the file's own folder, wherever a command is started."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flywheel.core.config import Lines
from flywheel.core.errors import UsageError

Key = tuple[str, ...]


@dataclass(frozen=True)
class Paths:
    """Which texts of a kind of settings file are paths.

    files: {key: ending}; a text with that ending is a path, any other one a name. either: keys, or tables, whose texts
    may also be names, such as tags of the hub: they are paths where the file's folder has them. prefixed: last parts of
    keys whose texts are a kind, a colon and a path.
    """

    files: Mapping[Key, str] = field(default_factory=dict)
    either: Collection[Key] = ()
    prefixed: Collection[str] = ()

    def absolute(self, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The values of a file in `folder` with absolute paths."""
        found = self._found(values, folder)

        def replaced(value: Any, key: Key) -> Any:
            if isinstance(value, Mapping):
                return {k: replaced(v, (*key, k)) for k, v in value.items()}
            if isinstance(value, list):
                return [replaced(v, (*key, str(n))) for n, v in enumerate(value)]
            return found[key][1] if key in found else value

        changed: dict[str, Any] = replaced(values, ())
        return changed

    def text(self, text: str, values: Mapping[str, Any], folder: Path) -> str:
        """The text of a file in `folder` with absolute paths, to be kept elsewhere. Errors: `UsageError`."""
        for key, (written, there) in self._found(values, folder).items():
            lines = re.findall(r"[^\n]*\n|[^\n]+", text)
            first = (Lines(text).at(key) or 1) - 1
            before, after = "".join(lines[:first]), "".join(lines[first:])
            quoted = next((q for q in (f'"{written}"', f"'{written}'") if q in after), None)
            if quoted is None:
                raise UsageError(f"{'.'.join(key)} names a file: write its path on one line, between plain quotes")
            text = before + after.replace(quoted, json.dumps(there, ensure_ascii=False), 1)
        return text

    def _found(self, values: Mapping[str, Any], folder: Path) -> dict[Key, tuple[str, str]]:
        """{key: (text as written, the same with an absolute path)} of the relative paths."""
        found = {}
        for key, text in _texts(values, ()):
            kind, colon, name = text.partition(":") if key[-1] in self.prefixed else ("", "", text)
            if not name or "://" in name or os.path.isabs(os.path.expanduser(name)):
                continue
            there = folder.absolute() / name
            either = any(key[: len(known)] == known for known in self.either) and there.exists()
            if either or (key in self.files and name.endswith(self.files[key])):
                found[key] = (text, f"{kind}{colon}{there}")
        return found


def _texts(value: Any, key: Key) -> Iterator[tuple[Key, str]]:
    """Every text in a table, with its key; items of lists are numbered."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, (*key, str(name)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, (*key, str(number)))
