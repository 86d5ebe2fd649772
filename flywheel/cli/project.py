"""The project file `flywheel.toml`: what the commands of a project share, written once."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flywheel.cli.console import json_text, out, say
from flywheel.cli.options import CaptionsOption, JsonOption
from flywheel.core.config import Lines, read_toml, toml_text
from flywheel.core.errors import UsageError

NAME = "flywheel.toml"
_JOBS = ("run", "curate", "serve")
# The verbs that read each key. Every verb that requires a workspace reads that one, too.
READ_BY: Mapping[str, tuple[str, ...]] = {
    "workspace": ("serve",),
    "source": _JOBS,
    "captions": _JOBS,
    "policy": (*_JOBS, "funnel", "what-if"),
    "preset": (*_JOBS, "fetch", "signals judge", "signals route", "suite judge", "evaluate pictures"),
    "seed": ("run",),
    "workers": (*_JOBS, "fetch"),
    "draw_workers": ("run",),
    "prefect": ("run",),
}
_TYPES = {"source": (str, list), "seed": (int,), "workers": (int,), "draw_workers": (int,), "prefect": (bool,)}
_PLACES = ("workspace", "source", "captions", "policy", "preset")

_PRESET = """\
# How rounds train and judge. This file says only what differs from the built-in preset that it is based on;
# `flywheel round plan --dry-run` shows what a round would do. All keys: docs/trainer.md.
# Paths are relative to this file.
base = "tiny"

# The model that rounds judge and repair. Without it they train a small one of their own.
# [generator]
# kind = "diffusers"            # or "endpoint", "recorded", or a kind of your own package
# model = "models/mine"         # folder of the pipeline, or a tag of the hub

# [evaluation]
# suite = "suite.jsonl"         # default: held-out pictures of the pool
# pictures = 4                  # of each prompt

# [review]
# auto_approve = false          # people review remedy samples before they train
"""

app = typer.Typer()


@app.command(epilog="Example: flywheel init --source photos/ --captions photos/captions.jsonl")
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the project.")] = Path("."),
    workspace: Annotated[
        str | None,
        typer.Option(
            "--workspace",
            "-w",
            help="Folder or s3://bucket/prefix for all data and results. Default: `workspace` in the project's folder.",
        ),
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="Where the images are. Repeatable.")] = None,
    captions: CaptionsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a commented project file and preset, so that later commands need no options.

    Commands in the folder of `flywheel.toml`, and below it, take from it what their command line does not say.
    """
    path, preset = folder / NAME, folder / "preset.toml"
    if made := [p for p in (path, preset) if os.path.lexists(p)]:
        raise UsageError(f"{made[0]} exists already: edit it, or choose another folder")
    if "" in (workspace, *(source or [])):
        raise UsageError("--workspace and --source need a text that is not empty")
    given = _project(
        "workspace" if workspace is None else _seen_from(folder, workspace),
        [_seen_from(folder, s) for s in source or []],
        _seen_from(folder, str(captions)) if captions else None,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        preset.write_text(_PRESET, "utf-8")
        path.write_text(given, "utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror}): choose another folder") from error
    if as_json:
        out(json_text({"project": str(path), "preset": str(preset)}))
        return
    say(f"wrote {path} and {preset}: look through them, they explain what can be set")
    place = "" if folder.resolve() == Path.cwd() else f", in {folder}"
    say(f"next{place}: " + ("flywheel curate --dry-run" if source else "flywheel inspect SOURCE, flywheel curate"))


def found(start: Path) -> Path | None:
    """The project file of a folder: its own, or that of the nearest folder above it."""
    return next((p for p in (folder / NAME for folder in (start, *start.parents)) if p.is_file()), None)


def defaults(command: Any, arguments: Sequence[str], start: Path) -> dict[str, Any]:
    """What the project file gives to the options of each verb of `command`, as Click's `default_map`.

    arguments: the command line; captions belong to the project's own source, so another source goes without them.
    A verb that reads no key works whatever the file says, and so it does if the key that is wrong is not its own.
    Errors: `UsageError` that names the file and a key that is unknown or of the wrong type.
    """
    path = found(start)
    if path is None or not (keys := _read_by(*_verb(command, arguments))):
        return {}
    values = read(path, keys)
    if any(a == "--source" or a.startswith("--source=") for a in arguments):
        values.pop("captions", None)
    return _given(command, values, "")


def blamed(error: Exception, command: Any, arguments: Sequence[str], start: Path) -> UsageError | None:
    """An error about an option, as one about the project file, if the option's value comes from there."""
    path = found(start)
    if path is None or not (keys := _read_by(*_verb(command, arguments))) or arguments[:1] in (["demo"], ["init"]):
        return None
    for key, value in read_toml(path).items():
        if key not in keys:
            continue
        option = f"--{key.replace('_', '-')}"
        if any(a.split("=")[0] in (option, *(["-w"] if key == "workspace" else [])) for a in arguments):
            continue
        where = f"{path}, line {Lines(toml_text(path)).at((key,))}"
        if getattr(getattr(error, "param", None), "name", None) == key:
            return UsageError(f"{where}: {key} is {value!r}: {getattr(error, 'message', error)}")
        if isinstance(error, UsageError) and str(error).startswith(f"{option} "):
            return UsageError(f"{where}: {str(error).removeprefix('--')}")
    return None


def read(path: Path, keys: Collection[str] | None = None) -> dict[str, Any]:
    """The values of a project file, or those of `keys`; local paths in it are relative to its folder.

    Errors: `UsageError` that names the line of a key that is unknown or has no such value.
    """
    values, lines = read_toml(path), Lines(toml_text(path))
    if unknown := [key for key in values if key not in READ_BY]:
        where = f"{path}, line {lines.at(unknown[:1])}"
        raise UsageError(f"{where}: unknown key {unknown[0]!r}: choose {', '.join(READ_BY)}")
    values = {k: v for k, v in values.items() if keys is None or k in keys}
    for key, value in values.items():
        if fault := _fault(key, value):
            raise UsageError(f"{path}, line {lines.at((key,))}: {fault}")
        if key in _PLACES:
            values[key] = [_place(path, key, v) for v in value] if isinstance(value, list) else _place(path, key, value)
    if isinstance(values.get("source"), str):
        values["source"] = [values["source"]]
    return values


def _fault(key: str, value: Any) -> str:
    """What is wrong with a value; empty if nothing is."""
    kinds = _TYPES.get(key, (str,))
    right = isinstance(value, kinds) and (isinstance(value, bool) == (bool in kinds))
    texts = value if isinstance(value, list) else [value] if str in kinds else ["-"]
    if not right or not all(isinstance(text, str) for text in texts):
        return f"{key} is {value!r}: give {_kind(kinds)}"
    return f"{key} is empty: fill it in, or put # before it" if not texts or "" in texts else ""


def _verb(command: Any, arguments: Sequence[str]) -> tuple[Any, str]:
    """The verb that a command line calls, and its name, such as `round plan`."""
    names: list[str] = []
    for argument in arguments:
        if below := getattr(command, "commands", {}).get(argument):
            command = below
            names.append(argument)
    return command, " ".join(names)


def _read_by(command: Any, verb: str) -> set[str]:
    """The keys that a verb reads."""
    required = {p.name for p in command.params if p.param_type_name == "option" and p.required}
    return {key for key, verbs in READ_BY.items() if verb in verbs or (key == "workspace" and key in required)}


def _kind(kinds: tuple[type, ...]) -> str:
    names = {str: "text", list: "a list of texts", int: "a whole number", bool: "true or false"}
    return " or ".join(names[k] for k in kinds)


def _place(path: Path, key: str, value: str) -> str:
    """A path of the project, from anywhere; addresses, and names of built-in presets and policies, stay."""
    built_in = key in ("policy", "preset") and not value.endswith(".toml")
    return value if built_in or _is_address(value) else str(path.parent.absolute() / os.path.expanduser(value))


def _seen_from(folder: Path, value: str) -> str:
    """A path of the command line as the project's folder sees it; addresses and absolute paths stay."""
    if _is_address(value) or os.path.isabs(os.path.expanduser(value)):
        return value
    return os.path.relpath(os.path.abspath(value), folder.absolute()) + ("/" if value.endswith("/") else "")


def _is_address(value: str) -> bool:
    return "://" in value or value.startswith("datasets:")


def _given(command: Any, values: Mapping[str, Any], verb: str) -> dict[str, Any]:
    """The part of the values for a verb, and for each verb below it."""
    own = {k: v for k, v in values.items() if k in _read_by(command, verb)}
    below = getattr(command, "commands", {})
    parts = {name: _given(c, values, f"{verb} {name}".strip()) for name, c in below.items()}
    return own | {name: part for name, part in parts.items() if part}


def _project(workspace: str, source: Sequence[str], captions: str | None) -> str:
    """The text of a project file; json.dumps writes text as TOML does."""
    given = json.dumps(list(source), ensure_ascii=False) if source else '["photos/"]'
    listed = json.dumps(captions or "photos/captions.jsonl", ensure_ascii=False)
    return f"""\
# What the commands of this project share: they read it in this folder and below it, and what their command line says
# goes first. Paths are relative to this file.

# All data and results: a folder, or s3://bucket/prefix.
workspace = {json.dumps(workspace, ensure_ascii=False)}

# Where the images are: folders, files or globs; also s3://, gs://, az://, hf://, https:// or datasets:OWNER/NAME.
{"" if source else "# "}source = {given}

# JSON Lines with file and caption, where the source has no captions of its own.
{"" if captions else "# "}captions = {listed}

# Which pictures are kept: a built-in policy (qwen-image-2, demo) or a .toml file. Default: the preset's.
# policy = "qwen-image-2"

# How rounds train and judge: a built-in preset (tiny, demo, quick) or a .toml file.
preset = "preset.toml"

# seed = 0
# workers = 2                   # processes that curate
# draw_workers = 2              # processes that draw and judge; default: one per GPU
# prefect = true                # record the steps of rounds as Prefect flow runs
"""
