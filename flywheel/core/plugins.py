"""Entry points of installed packages: scorers, verifiers, synthesis recipes, suites, meanings of prompts."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from flywheel.core.errors import UsageError


@cache
def names(group: str) -> dict[str, str]:
    """{name: "module:attribute"} of the entry points of a group."""
    return {e.name: e.value for e in entry_points(group=group)}


@cache
def plugins(group: str) -> dict[str, Any]:
    """{name: object} of a group. Errors: `UsageError` for an entry point that cannot be imported."""
    loaded = {}
    for entry in entry_points(group=group):
        try:
            loaded[entry.name] = entry.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"the entry point {entry.name} = {entry.value} of {group} cannot be imported ({error}): reinstall or"
                " remove the package that declares it"
            ) from error
    return loaded
