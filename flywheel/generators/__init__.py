"""Generators: what draws the pictures of a workspace.

A generator is described by a table, such as a preset's `[generator]`: `kind`, and the arguments of its class. In a
workspace it is a folder: a checkpoint, a diffusers pipeline, or a file `generator.json` with such a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.generator import Generator
from flywheel.core.plugins import names, plugins
from flywheel.core.storage import located
from flywheel.generators.checkpoint import CheckpointGenerator
from flywheel.generators.endpoint import EndpointGenerator
from flywheel.generators.pipeline import PipelineGenerator, is_local
from flywheel.generators.recorded import RecordedGenerator

DESCRIBED = "generator.json"
KINDS: Mapping[str, type] = {
    "checkpoint": CheckpointGenerator,
    "diffusers": PipelineGenerator,
    "endpoint": EndpointGenerator,
    "recorded": RecordedGenerator,
}
PATHS = ("model", "lora", "folder", "suite")  # arguments that may be paths; relative to the folder of the table
_PARTS = ("draw", "fingerprint", "independent")


def open_generator(description: Mapping[str, Any]) -> Generator:
    """The generator of a table. Built-in kinds load their weights when they first draw. Errors: `UsageError`."""
    kind = str(description.get("kind", ""))
    known = sorted({*KINDS, *names("flywheel.generators")})
    if kind not in known:
        raise UsageError(f"generator.kind is {kind!r}: choose {', '.join(known)}")
    cls = KINDS.get(kind) or plugins("flywheel.generators")[kind]
    try:
        made = cls(**{k: v for k, v in description.items() if k != "kind"})
    except TypeError as error:
        raise UsageError(f"generator of kind {kind}: {error}") from error
    if missing := [part for part in _PARTS if not hasattr(type(made), part) and part not in vars(made)]:
        raise UsageError(
            f"generator {kind}: its class has no {', '.join(missing)}: see flywheel.core.generator.Generator"
        )
    return made


def describe(name: str | Path) -> dict[str, Any]:
    """The table of a generator that is named by a folder or a hub tag. Errors: `UsageError` for anything else.

    A folder may hold a checkpoint or the run that wrote one, a diffusers pipeline, or `generator.json`.
    """
    text = str(name)
    if not is_local(text):
        return {"kind": "diffusers", "model": text}
    folder = located(name)
    if (folder / DESCRIBED).is_file():
        table = read_json(folder / DESCRIBED)
        if not isinstance(table, dict):
            raise UsageError(f"{folder / DESCRIBED} is not a table of a generator: give its kind and its arguments")
        return resolved(table, folder)
    if (folder / "model_index.json").is_file():
        return {"kind": "diffusers", "model": str(folder)}
    final = folder / "final"
    return {"kind": "checkpoint", "model": str(final if (final / "config.json").is_file() else folder)}


def resolved(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The table with its relative paths taken from `folder`, where they exist there; hub tags stay."""
    out = dict(table)
    for key in PATHS:
        if (value := out.get(key)) and isinstance(value, str) and not Path(value).is_absolute() and "://" not in value:
            inside = folder / value
            out[key] = str(inside) if inside.exists() else value
    return out
