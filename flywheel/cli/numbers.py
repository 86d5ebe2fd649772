"""Numbers on the command line: every one is finite, and no larger than what tables, seeds and JSON hold exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import typer

from flywheel.core.ranges import MOST


def require_numbers(command: Any) -> None:
    """Let a command, and those below it, refuse numbers that no option can mean, such as `nan`.

    A range of an option's own does not: whatever is compared with `nan` is false.
    """
    for parameter in command.params:
        if getattr(parameter.callback, "func", None) is not _checked:
            parameter.callback = partial(_checked, parameter.callback)
    for below in getattr(command, "commands", {}).values():
        require_numbers(below)


def _checked(inner: Callable[..., Any] | None, context: Any, parameter: Any, value: Any) -> Any:
    for number in _numbers(value):
        if not math.isfinite(number):
            raise typer.BadParameter(f"{number} is not a number that can be used", context, parameter)
        if abs(number) > MOST:
            raise typer.BadParameter(f"{number} is too large: give at most {MOST}", context, parameter)
    return inner(context, parameter, value) if inner else value


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner)
