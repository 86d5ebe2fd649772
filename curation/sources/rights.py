"""What a source says about who may use a picture: licence, where it was published, consent."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

# Field of `Rights` → names that sources give it, in any letter case; the first one that has a value counts.
NAMES: Mapping[str, tuple[str, ...]] = {
    "license": ("license", "licence", "license_name", "license_url", "licence_url"),
    "source_url": ("source_url", "url", "image_url", "original_url"),
    "consent": ("consent",),
}
_MOST = 4096  # characters of a value: a longer one is a text, not a name or an address


class Rights(NamedTuple):
    """The columns `license`, `source_url` and `consent` of the pool, as the source states them; None: not stated."""

    license: str | None = None
    source_url: str | None = None
    consent: str | None = None


def rights_of(row: Mapping[str, Any]) -> Rights:
    """The rights that a side-car or a row of columns states. Errors: `ValueError` that names the key."""
    lower = {key.lower(): key for key in row if isinstance(key, str)}
    found = {}
    for field, names in NAMES.items():
        keys = [lower[name] for name in names if name in lower]
        values = (_text(key, row[key]) for key in keys)
        found[field] = next((value for value in values if value), None)
    return Rights(**found)


def merged(parts: Iterable[Rights]) -> Rights:
    """The rights that several lines about one picture state: of each field, the first that is stated."""
    return Rights(*(next(filter(None, values), None) for values in zip(Rights(), *parts)))


def columns_of(names: Collection[str]) -> tuple[str, ...]:
    """Those of the names of a table's columns that state rights."""
    known = {name for group in NAMES.values() for name in group}
    return tuple(name for name in names if name.lower() in known)


def _text(key: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str):  # a licence may be a number, or a list of names
        value = json.dumps(value, ensure_ascii=False)
    if len(value) > _MOST:
        raise ValueError(f'"{key}" has {len(value)} characters: at most {_MOST} are possible')
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate
        raise ValueError(f'"{key}" is not valid Unicode') from None
    return value.strip()
