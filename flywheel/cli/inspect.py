"""The verb that shows what the engine sees in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flywheel.cli.console import out
from flywheel.cli.options import JsonOption
from flywheel.core.errors import UsageError

app = typer.Typer()


@app.command(epilog='Example: flywheel inspect photo.tif --pixels seen.png --caption "a red boat"')
def inspect(
    file: Annotated[Path, typer.Argument(help="Image file.")],
    pixels: Annotated[Path | None, typer.Option(help="Write the decoded picture to this PNG file.")] = None,
    caption: Annotated[str | None, typer.Option(help="Also show what the text rules make of this caption.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how an image file is read: format, size, orientation, depth, transparency, profile, frames and damage.

    Scorers, evaluation and training see the picture that --pixels writes: upright, 8-bit sRGB, transparency on white.
    Exit code 2 if the file is refused or damaged.
    """
    from flywheel.core.image import BadImage, decode, describe

    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    try:
        answer = asdict(describe(data))
    except BadImage as error:
        answer = {"damage": str(error)}
    if pixels and not answer["damage"]:
        _write(decode(data), pixels)
    if caption is not None:
        answer |= {"caption": _text_columns(caption)}
    _print({"file": str(file), **answer}, as_json=as_json)
    if answer["damage"]:
        raise typer.Exit(2)


def _write(picture: Any, path: Path) -> None:
    try:
        picture.save(path, "PNG")
    except OSError as error:
        raise UsageError(f"--pixels {path} cannot be written: {error.strerror or error}") from error


def _text_columns(caption: str) -> dict[str, Any]:
    """Columns of the `text` and `caption` scorers, as policies name them."""
    from curation.scorers import load
    from flywheel.core.scorer import Item

    columns: dict[str, Any] = {}
    for scorer in (load("text"), load("caption")):
        (row,) = scorer.score([Item(b"", caption)])
        if isinstance(row, Exception):
            raise row
        columns |= {f"{scorer.name}.{name}": value for name, value in row.items()}
    return columns


def _print(answer: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        out(json.dumps(answer, ensure_ascii=False))
        return
    lines = {k.replace("_", " "): v for k, v in answer.items() if k != "caption"} | answer.get("caption", {})
    width = max(map(len, lines))
    for name, value in lines.items():
        out(f"{name:<{width}}  {_shown(value)}")


def _shown(value: object) -> object:
    """A value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return "none" if value in (None, "") else value
