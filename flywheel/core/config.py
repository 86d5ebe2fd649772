"""Reading TOML: the one reader of every settings file."""

from __future__ import annotations

import math
import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.storage import located


def read_toml(path: Path | Traversable) -> dict[str, Any]:
    """The values of a TOML file: local, on S3, or inside a package.

    Errors: `UsageError` that names the file, the line where it is not TOML, and the number that is not one.
    """
    source = located(path) if isinstance(path, Path) else path
    try:
        return tomllib.loads(source.read_text("utf-8"), parse_float=_number)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {source}: {error}") from error


def _number(text: str) -> float:
    value = float(text)
    if math.isnan(value):
        raise ValueError(f"{text} is not a number: no setting can be compared with it")
    return value
