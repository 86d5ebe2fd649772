"""Presets: every number of a run as data. The tiny and the full run differ only here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from curation.sources.urls import Fetching
from flywheel.core.config import Lines, read_toml, toml_text
from flywheel.core.errors import UsageError
from flywheel.core.ranges import unusable
from flywheel.core.settings_paths import Paths
from flywheel.presets.sections import (
    Attribution,
    Distil,
    Enhancer,
    Evaluation,
    Gate,
    Plan,
    Review,
    Rewards,
    Trainer,
    Training,
)
from training.dmd.recipe import DMD_RECIPES
from training.recipe_file import named
from training.recipes import from_dict
from training.rl.recipe import RL_RECIPES

PATHS = Paths(
    files={("policy",): ".toml", ("evaluation", "suite"): ".jsonl", ("evaluation", "hidden"): ".jsonl"},
    either=(
        *(("generator", key) for key in ("model", "lora", "folder", "suite")),
        *(("training", "recipe", key) for key in ("autoencoder", "condition", "latents")),
        ("training", "start"),
        ("enhancer", "backend"),
        ("distil", "recipe", "teachers"),
        ("evaluation", "scorers"),
    ),
    prefixed=("condition",),
)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Everything that a run needs besides its data.

    >>> import flywheel as fw
    >>> from dataclasses import replace
    >>> preset = fw.load_preset("tiny")
    >>> replace(preset, threads=4).threads
    4
    """

    name: str
    policy: str
    threads: int  # CPU threads per process; candidate and control train at the same time
    training: Training
    evaluation: Evaluation
    attribution: Attribution
    plan: Plan
    review: Review
    rewards: Rewards
    enhancer: Enhancer
    distil: Distil
    gate: Gate
    fetch: Fetching = Fetching()
    trainer: Trainer = Trainer()
    generator: Mapping[str, Any] = field(default_factory=dict)  # of the first round: see flywheel.generators; {}: ours


_ALONE = {"policy": str, "threads": int}
_NAMES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list",
    Mapping: "a table",
}
_SECTIONS = {
    "training": Training,
    "evaluation": Evaluation,
    "attribution": Attribution,
    "plan": Plan,
    "review": Review,
    "rewards": Rewards,
    "enhancer": Enhancer,
    "distil": Distil,
    "gate": Gate,
    "fetch": Fetching,
    "trainer": Trainer,
}


def recipe_of(given: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(base, changes) of a recipe that a preset names, alone or with changes."""
    if isinstance(given, str):
        return given, {}
    return given["base"], {k: v for k, v in given.items() if k != "base"}


_MENTIONED = ("kind", "url", "model")  # keys of free tables that also stand in sentences about others


@contextmanager
def blaming(name: str, *table: str) -> Iterator[None]:
    """Say in which line of a preset the table or key stands that a `UsageError` raised inside is about.

    name: as given to `load_preset`; table: its keys, such as `evaluation`, `judge`.
    """
    try:
        yield
    except UsageError as error:
        path = Path(name) if name.endswith(".toml") else None
        values: Any = read_toml(path) if path else {}
        for key in table:
            values = values.get(key, {})
        said = str(error)
        key = next(
            (k for k in sorted(values, key=_MENTIONED.__contains__) if re.search(rf"\b{re.escape(k)}\b", said)), ""
        )
        at = _Places(name, Lines(toml_text(path)) if path else None)
        raise at.fault((*table, key), f"{'.'.join(table)}: {said}") from error


def built_in() -> list[str]:
    """Names of the built-in presets."""
    return sorted(p.name[:-5] for p in resources.files("flywheel.presets").iterdir() if p.name.endswith(".toml"))


def load_preset(name: str) -> Preset:
    """A built-in preset by name, or one from a TOML file. Errors: `UsageError` naming the file and the key.

    A file names the built-in preset it is based on (`base`, by default `tiny`) and says only what differs. Paths in it
    are relative to its folder.

    >>> import flywheel as fw
    >>> fw.load_preset("tiny").policy
    'qwen-image-2'
    """
    path = Path(name) if name.endswith(".toml") else None
    data: dict[str, Any] = PATHS.absolute(read_toml(path), path.parent) if path else {"base": name}
    at = _Places(name, Lines(toml_text(path)) if path else None)
    base = data.pop("base", "tiny")
    if base not in built_in():
        advice = "" if path else ", or give a .toml file"
        raise at.fault(("base",), f"unknown preset {base!r}: choose one of {', '.join(built_in())}{advice}")
    for key in data:
        if key not in (*_SECTIONS, *_ALONE, "generator"):
            raise at.fault((key,), f"unknown key {key}: choose from {', '.join((*_ALONE, *_SECTIONS, 'generator'))}")
        if key in (*_SECTIONS, "generator") and not isinstance(data[key], dict):
            raise at.fault((key,), f"{key} is not a table: write [{key}]")
    data = _over(read_toml(resources.files("flywheel.presets") / f"{base}.toml"), data)
    for key, kind in _ALONE.items():
        value = data.get(key, "-" if kind is str else 1)
        if not _fits(value, kind) or value == "" or (kind is int and not 0 < value <= 4096):
            raise at.fault((key,), f"{key} = {data[key]!r} is not {_NAMES[kind]}{' from 1 to 4096' * (kind is int)}")
    generator = data.get("generator", {})
    if generator and "kind" not in generator:
        raise at.fault(("generator",), "[generator] needs a kind, such as diffusers or endpoint")
    for key in ("training", "rewards", "distil"):
        recipe = data.get(key, {}).get("recipe", "")
        if isinstance(recipe, dict) and not isinstance(recipe.get("base"), str):
            raise at.fault((key, "recipe"), f"{key}.recipe names no base: add base, the recipe that it changes")
    numbers = dict(data)
    sections = {key: _section(at, key, kind, data.pop(key, {})) for key, kind in _SECTIONS.items()}
    for key, check in _RECIPES.items():
        try:
            check(sections[key].recipe)
        except UsageError as error:
            named = str(error).partition(" ")[0]
            raise at.fault((key, "recipe", *named.split(".")), f"{key}.recipe: {error}") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise at.fault((key, "recipe"), f"{key}.recipe cannot be used ({error})") from error
    for place, fault in unusable(numbers):
        raise at.fault(place, fault)
    given = {"policy": data["policy"], "threads": data.get("threads", 1), "generator": generator}
    return Preset(name=path.stem if path else name, **given, **sections)


def _named(known: Mapping[str, Any], given: str | Mapping[str, Any]) -> object:
    base, changes = recipe_of(given)
    return named(known, base, changes)


_RECIPES: Mapping[str, Callable[[Any], object]] = {
    "training": from_dict,
    "rewards": partial(_named, RL_RECIPES),
    "distil": partial(_named, DMD_RECIPES),
}


def _over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The base with the changes in place of its keys, section by section."""
    sections = {k: v for k, v in changes.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return base | changes | {k: base[k] | v for k, v in sections.items()}


@dataclass(frozen=True)
class _Places:
    """The name of a preset and the lines of its file, for errors."""

    name: str
    lines: Lines | None

    def fault(self, path: tuple[str, ...], message: str) -> UsageError:
        """An error about the key at this path."""
        line = self.lines.at(path) if self.lines else None
        return UsageError(f"preset {self.name}{f', line {line}' if line else ''}: {message}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a TOML value is of a type, as far as it can be told."""
    parts = get_args(hint)
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(v, parts[0]) for v in value)
    if origin is not None or hint is Mapping:
        return isinstance(value, Mapping) and all(_fits(v, parts[1]) for v in value.values() if len(parts) > 1)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _wanted(hint: Any) -> str:
    """What a value of this type is called."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_wanted(part) for part in get_args(hint))
    return _NAMES.get(get_origin(hint) or hint, "a value of another kind")


def _section(at: _Places, key: str, kind: type, values: dict[str, Any]) -> Any:
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            raise at.fault((key, name), f"unknown key {key}.{name}: choose from {', '.join(hints)}")
        if not _fits(value, hints[name]):
            raise at.fault((key, name), f"{key}.{name} = {value!r} is not {_wanted(hints[name])}")
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in missing if name not in values]:
        raise at.fault((key,), f"[{key}] needs {', '.join(missing)}")
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except UsageError as error:
        said = str(error)
        named = next((k for k in values if said.startswith((f"{key}.{k} ", f"{key}.{k}."))), "")
        named = named or next((k for k in values if k in said), "")
        raise at.fault((key, named), str(error)) from error
