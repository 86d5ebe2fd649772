"""Recipes of one kind by name, or from a TOML file that names its `base` and what it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flywheel.core.config import read_toml
from flywheel.core.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")


def known_recipe(known: Mapping[str, R], name: str) -> R:
    """The recipe of that name. Errors: `UsageError`."""
    if name not in known:
        raise UsageError(f"unknown recipe {name!r}: use one of {', '.join(known)}, or give a .toml file")
    return known[name]


def named(known: Mapping[str, R], name: str, changes: Mapping[str, Any]) -> R:
    """A recipe of `known`, with changes; lists become tuples. Errors: `UsageError` for unknown names and values."""
    chosen = known_recipe(known, name)
    unknown = sorted(set(changes) - {f.name for f in fields(chosen)})
    if unknown:
        raise UsageError(f"recipe {name} has no {', '.join(unknown)}")
    return replace(chosen, **{key: _frozen(value) for key, value in changes.items()})


def load(name: str, known: Mapping[str, R]) -> R:
    """A recipe by name or from a .toml file. Errors: `UsageError`."""
    if not name.endswith(".toml"):
        return named(known, name, {})
    values = dict(read_toml(Path(name)))
    base = values.pop("base", None)
    if base is None:
        raise UsageError(f"recipe {name} names no base: add base = {min(known)!r}, or another of {', '.join(known)}")
    return named(known, base, values)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value
