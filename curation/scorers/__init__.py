"""Every scorer by name. `load("ocr", only_quoted=True)` imports only what that scorer needs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flywheel.workspace import UsageError

if TYPE_CHECKING:
    from flywheel.scorer import Scorer

# name → (module, class): one file each, imported when asked for
SCORERS = {
    "header": ("curation.scorers.header", "Header"),
    "pixels": ("curation.scorers.pixels", "Pixels"),
    "text": ("curation.scorers.text", "Text"),
    "ocr": ("curation.scorers.ocr", "Ocr"),
    "clip": ("curation.scorers.clip", "Clip"),
    "objects": ("curation.scorers.objects", "Objects"),
    "similarity": ("curation.scorers.similarity", "Similarity"),
}


def load(name: str, **options: Any) -> Scorer:
    """The scorer `name`, configured. Errors: `UsageError` for an unknown name or option."""
    if name not in SCORERS:
        raise UsageError(f"unknown scorer {name!r}: choose from {', '.join(sorted(SCORERS))}")
    module, attribute = SCORERS[name]
    factory = getattr(importlib.import_module(module), attribute)
    try:
        return factory(**options)
    except TypeError as error:
        raise UsageError(f"scorer {name!r} does not take these options ({sorted(options)}): {error}") from error
