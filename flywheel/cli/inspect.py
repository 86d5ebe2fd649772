"""The verb that shows what the engine sees in one file, or in a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flywheel.cli.console import json_text, out
from flywheel.cli.options import CaptionsOption, JsonOption, require_suffix
from flywheel.core.errors import UsageError

app = typer.Typer()


@app.command(epilog="Example: flywheel inspect s3://bucket/laion/ --rows 5")
def inspect(
    source: Annotated[str, typer.Argument(help="Image file, or a source as for `curate --source`.")],
    pixels: Annotated[Path | None, typer.Option(help="Write the decoded picture to this PNG file.")] = None,
    caption: Annotated[str | None, typer.Option(help="Also show what the text rules make of this caption.")] = None,
    captions: CaptionsOption = None,
    rows: Annotated[int, typer.Option(min=0, help="First rows of each kind to show, of a source.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Show how an image file is read, or what a source would bring in. Changes nothing.

    Of an image file: format, size, orientation, depth, transparency, profile, frames and damage. Scorers, evaluation
    and training see the picture that --pixels writes: upright, 8-bit sRGB, transparency on white. Exit code 2 if the
    file is refused or damaged.

    Of a source, within seconds: its files by kind, the columns that are read and why, counts, the first rows, and what
    is not understood.
    """
    from curation.sources.survey import is_picture

    of_picture = pixels is not None or caption is not None
    if of_picture and (captions or Path(source).is_dir()):
        raise UsageError("--pixels and --caption are for one image file, --captions and folders are sources")
    if of_picture or (is_picture(source) and not captions):
        _inspect_picture(Path(source), pixels, caption, as_json=as_json)
    else:
        _inspect_source(source, captions, rows, as_json=as_json)


def _inspect_picture(file: Path, pixels: Path | None, caption: str | None, *, as_json: bool) -> None:
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


def _inspect_source(source: str, captions: Path | None, rows: int, *, as_json: bool) -> None:
    from curation.sources.survey import shortened, survey

    found = survey(source, captions, rows=rows)
    if as_json:
        out(json_text(asdict(found)))
        return
    found = shortened(found)
    out(f"{found.address}: {'' if found.whole else 'at least '}{found.files} files, {_size(found.bytes)}")
    for part in found.parts:
        counted = f"{'at least ' if part.at_least else ''}{part.rows} rows"
        out(f"\n{part.kind}: {part.files} files, {_size(part.bytes)}, {counted}")
        if part.notes:
            out(f"  {part.notes}")
        for role, name, why in part.columns:
            out(f"  {role}: column {name!r}, {why}")
        if part.ignored:
            out(f"  not read: {', '.join(part.ignored)}")
        for row in part.first:
            out("  " + "  ".join(f"{name}={value}" for name, value in row.items()))
    for title, entries in (("not understood", found.not_understood), ("left out", found.left_out)):
        if entries:
            out(f"\n{title}:")
        for name, why in entries:
            out(f"  {name}: {why}" if why else f"  {name}")


def _size(count: int) -> str:
    """Bytes for people."""
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}" if units[0] != "bytes" else f"{count} bytes"


def _write(picture: Any, path: Path) -> None:
    require_suffix("--pixels", path, "a PNG file", ".png")
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
        out(json_text(answer))
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
