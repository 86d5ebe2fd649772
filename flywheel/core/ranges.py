"""Ranges of settings, stated where a setting is declared and checked when it is read.

A field of type `Annotated[float, Span(0, 1)]`, or one of the aliases below, takes numbers from 0 to 1; so does every
number in a field of type `Annotated[tuple[float, ...], Span(0, 1)]` or of a mapping to numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from flywheel.core.errors import UsageError

_CALLED: Mapping[Any, str] = {str: "a text", bool: "true or false", tuple: "a list", Mapping: "a table"}
MOST = 2**53  # the largest whole number that tables, seeds and JSON hold exactly


@dataclass(frozen=True)
class Span:
    """Numbers from `least` to `most`; above: more than `least`; below: less than `most`. Never infinite or NaN."""

    least: float
    most: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: object) -> bool:
        """Whether a value is a number in the range."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        low = value > self.least if self.above else value >= self.least
        return low and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        low = f"above {self.least:g}" if self.above else f"of {self.least:g} or more"
        if math.isinf(self.most):
            return low if math.isfinite(self.least) else "that is finite"
        if not self.above and not self.below:
            return f"from {self.least:g} to {self.most:g}"
        return f"{low} and {'below' if self.below else 'at most'} {self.most:g}"


Share = Annotated[float, Span(0, 1)]
Count = Annotated[int, Span(0)]
Positive = Annotated[int, Span(1)]
Amount = Annotated[float, Span(0)]
Above = Annotated[float, Span(0, above=True)]
Finite = Annotated[float, Span(-math.inf)]


@cache
def spans(kind: Any) -> Mapping[str, tuple[Span, bool]]:
    """{field: range, whether its numbers must be whole} of a dataclass, for the fields that state a range."""
    hints, found = get_type_hints(kind, include_extras=True), dict[str, tuple[Span, bool]]()
    for field_ in fields(kind):
        hint = hints[field_.name]
        if get_origin(hint) is Annotated:
            inner, *extras = get_args(hint)
            span = next((e for e in extras if isinstance(e, Span)), None)
            if span is not None:
                found[field_.name] = (span, _numbers(inner) == {int})
    return found


@cache
def _kinds(kind: Any) -> Mapping[str, tuple[type, int, str]]:
    """{field: type, length (0: any), what it is called} of a dataclass, for texts, switches, tables and lists."""
    hints, found = get_type_hints(kind), dict[str, tuple[type, int, str]]()
    for field_ in fields(kind):
        hint = hints[field_.name]
        plain, parts = get_origin(hint) or hint, get_args(hint)
        if plain in _CALLED:
            length = len(parts) if plain is tuple and ... not in parts else 0
            found[field_.name] = (plain, length, f"a list of {length}" if length else _CALLED[plain])
    return found


def require_ranges(values: Any, owner: str = "") -> None:
    """Check the fields of a dataclass: texts, switches, tables and lists are such, and numbers are in their ranges.

    Errors: `UsageError` that names owner and field.
    """
    declared: Any = type(values)
    for name, (wanted, length, called) in _kinds(declared).items():
        value: Any = getattr(values, name)
        fits: bool = isinstance(value, list | tuple if wanted is tuple else wanted)
        if not fits or (length and len(value) != length):
            raise UsageError(f"{owner}{name} is {value!r}: give {called}")
    for name, (span, whole) in spans(declared).items():
        for key, value in _each(name, getattr(values, name)):
            if not span.holds(value) or (whole and value != int(value)):
                kind = "a whole number" if whole else "a number"
                raise UsageError(f"{owner}{key} is {value!r}: give {kind} {span}")


def unusable(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, what is wrong) of every number in nested tables and lists that none can mean: NaN, infinite, over `MOST`.

    For tables without declared ranges, such as those of plug-ins.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from unusable(inner, (*path, str(key)))
    elif isinstance(value, tuple | list):
        for number, inner in enumerate(value):
            yield from unusable(inner, (*path, str(number)))
    elif isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= MOST):
        yield path, f"{'.'.join(path)} is {value}: give a finite number of at most {MOST}"


def _each(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(name, number) of every number in a field."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _each(f"{name}.{key}", inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _each(name, inner)
    else:
        yield name, value


def _numbers(hint: Any) -> set[type]:
    """The number types in a type hint."""
    if hint in (int, float):
        return {hint}
    return set().union(*map(_numbers, get_args(hint))) if get_args(hint) else set()
