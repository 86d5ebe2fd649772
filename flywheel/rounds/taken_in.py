"""Generators that a round did not make: copied, or described, in a folder of the workspace."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flywheel.core import hashes
from flywheel.core.environment import raise_environment_error
from flywheel.core.errors import UsageError
from flywheel.core.files import is_whole, rename_folder, write_json
from flywheel.core.generator import Undrawn
from flywheel.core.mirror import fetched, mirror, publish
from flywheel.core.storage import located
from flywheel.generators import DESCRIBED, open_generator
from flywheel.generators.pipeline import is_local
from flywheel.generators.recorded import RecordedGenerator
from flywheel.presets import Evaluation

_COPIED = ("model", "lora")  # what a generator's table names by a local path, and the workspace keeps


def keep(place: Path, table: Mapping[str, Any]) -> Path:
    """Write a generator's folder: local weights are copied, what is elsewhere is described; a finished one is kept."""
    open_generator(table)  # its errors, before anything is copied
    plain = set(table) == {"kind", "model"} and table["kind"] in ("checkpoint", "diffusers")

    def write(folder: Path) -> None:
        if plain and is_local(str(table["model"])):
            _copy_tree(fetched(table["model"]), folder)
            return
        folder.mkdir(parents=True)
        kept = dict(table)
        for name in _COPIED:
            if (value := str(kept.get(name, ""))) and is_local(value) and located(value).exists():
                source = fetched(value)
                kept[name] = name if source.is_dir() else f"{name}-{source.name}"
                (_copy_tree if source.is_dir() else shutil.copy2)(source, folder / kept[name])
        write_json(folder / DESCRIBED, kept)

    return whole(place, write)


def _copy_tree(source: Path, folder: Path) -> None:
    """Copy a folder without the records of hashes that it may have where it is now."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(hashes.FOLDER))


def whole(place: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a folder that appears whole or not at all; a finished one is kept."""
    final = mirror(place)
    if not is_whole(place) and not is_whole(final):
        unfinished = final.with_name(f".{final.name}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        write(unfinished)
        rename_folder(unfinished, final)
    publish(place)
    return place


def _reason(error: Exception) -> str:
    """What is wrong, in one line."""
    said = " ".join(str(error).split())
    return f"its configuration has no {said}" if isinstance(error, KeyError) else said or type(error).__name__


def require_drawing(table: Mapping[str, Any], settings: Evaluation, advice: str) -> None:
    """Draw one picture in one step with weights that are here. Errors: `UsageError` that ends in the advice."""
    if table["kind"] not in ("checkpoint", "diffusers"):
        generator = open_generator(table)
        if isinstance(generator, RecordedGenerator):
            generator.require_folder()
        return
    try:
        size = (settings.side, settings.side)
        (picture,) = open_generator(table).draw(["a test"], seeds=[0], size=size, steps=1)
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever damaged weights raise
        raise_environment_error(error)
        raise UsageError(f"{table['model']} cannot draw ({_reason(error)}): {advice}") from error
    if isinstance(picture, Undrawn):
        raise UsageError(f"{table['model']} cannot draw ({picture.reason}): {advice}")
