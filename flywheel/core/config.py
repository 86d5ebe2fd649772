"""Reading TOML: the one reader of every settings file."""

from __future__ import annotations

import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.storage import located


def read_toml(path: Path | Traversable) -> dict[str, Any]:
    """The values of a TOML file: local, on S3, or inside a package.

    Errors: `UsageError` that names the file, and the line where it is not TOML.
    """
    source = located(path) if isinstance(path, Path) else path
    try:
        return tomllib.loads(source.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {source}: {error}") from error
