"""Reading TOML: the one reader of every settings file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.storage import located


def read_toml(path: Path | Traversable) -> dict[str, Any]:
    """The values of a TOML file: local, on S3, or inside a package.

    Errors: `UsageError` that names the file, and the line where it is not TOML.
    """
    try:
        return tomllib.loads(toml_text(path))
    except ValueError as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def toml_text(path: Path | Traversable) -> str:
    """The text of a TOML file, without the mark that some editors put first. Errors: `UsageError`."""
    source = located(path) if isinstance(path, Path) else path
    try:
        return source.read_text("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read {source}: it is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"cannot read {source}: {error}") from error


class Lines:
    """The line of every table and key of a TOML text, for errors: the parser keeps no positions."""

    def __init__(self, text: str) -> None:
        self._known = _located(text)

    def at(self, path: Sequence[str]) -> int | None:
        """Line of the key at a path, of the nearest table above it, or of the first one below; None without any."""
        known = [self._known.get(tuple(path[:n])) for n in range(len(path), 0, -1)]
        below = [line for place, line in self._known.items() if path and place[:1] == tuple(path[:1])]
        return next((line for line in (*known, *below) if line), None)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the changes in place of its keys, table by table, at every depth."""
    both = {k: merged(base[k], v) for k, v in changes.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return {**base, **changes, **both}


def _located(text: str) -> dict[tuple[str, ...], int]:
    table: tuple[str, ...] = ()
    lines: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if header := re.match(r"\s*\[\[?([^\[\]]+)\]", line):
            table = _path(header[1])
            lines.setdefault(table, number)
        elif key := re.match(r"""\s*([\w."'-]+)\s*=""", line):
            lines.setdefault((*table, *_path(key[1])), number)
    return lines


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
