"""Scorers by name. `load("ocr", only_quoted=True)` imports only what that scorer needs.

Installed packages add scorers through the entry point group `flywheel.scorers`, for example
`brightness = my_package.scorers:Brightness`. They cannot replace a built-in name.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flywheel.core.errors import UsageError
from flywheel.core.plugins import names

if TYPE_CHECKING:
    from flywheel.core.scorer import Scorer

# name → module:class, one file each, imported on first use
SCORERS = names("flywheel.scorers") | {
    "header": "curation.scorers.header:Header",
    "pixels": "curation.scorers.pixels:Pixels",
    "copies": "curation.scorers.copies:Copies",
    "text": "curation.scorers.text:Text",
    "ocr": "curation.scorers.ocr:Ocr",
    "clip": "curation.scorers.clip:Clip",
    "similarity": "curation.scorers.similarity:Similarity",
    "detail": "curation.scorers.detail:Detail",
    "caption": "curation.scorers.caption:Caption",
    "face": "curation.scorers.face:Face",
    "exposure": "curation.scorers.exposure:Exposure",
    "structure": "curation.scorers.structure:Structure",
    "category": "curation.scorers.category:Category",
    "nsfw": "curation.scorers.nsfw:Nsfw",
    "quality": "curation.scorers.quality:Quality",
    "imagenet": "curation.scorers.imagenet:ImageNet",
    "change": "curation.scorers.change:Change",
    "photo": "curation.scorers.photo:Photo",
    "c2pa": "curation.scorers.c2pa:C2pa",
}


class Unavailable(Exception):
    """The scorer cannot run because its weights are missing. A policy then skips its filters and reports them."""


def load(name: str, **options: Any) -> Scorer:
    """Configure and return the scorer `name`; your own scorer is `module:Class`.

    Errors: `UsageError` for an unknown name or option, `Unavailable` when its weights are missing.
    """
    factory = scorer_class(name)
    try:
        return factory(**options)
    except TypeError as error:
        raise UsageError(f"scorer {name!r} does not take these options ({sorted(options)}): {error}") from error


def scorer_class(name: str) -> Any:
    """Class of a scorer; its `fields` list every column it can have. Errors: `UsageError` for an unknown name."""
    target = SCORERS.get(name, name if ":" in name else None)
    if target is None:
        raise UsageError(f"unknown scorer {name!r}: choose from {', '.join(sorted(SCORERS))}, or pass module:Class")
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"scorer {name!r} cannot be imported: {error}") from error


def is_configured(name: str, options: Mapping[str, Any]) -> bool:
    """Whether every option that the scorer requires is set."""
    return all(options.get(key) for key in getattr(scorer_class(name), "requires", ()))
