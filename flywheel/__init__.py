"""Data flywheel and curation platform for image generators. The names below are the public API.

>>> import flywheel as fw
>>> len(fw.__all__)
16
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curation.policy.policy import Policy
    from curation.policy.reader import load_policy
    from curation.verify.checks import verify
    from dashboards.notebook import open_workspace as open
    from flywheel.catalog.database import export, query
    from flywheel.core.errors import UsageError
    from flywheel.core.image import decode
    from flywheel.core.scorer import Item, Scorer
    from flywheel.core.workspace import Workspace
    from flywheel.presets import Preset, load_preset
    from flywheel.rounds.job import Job
    from flywheel.rounds.run import curate, run

# name → module[:attribute], imported when the name is first used: `import flywheel` loads nothing else
_PLACES = {
    "Item": "flywheel.core.scorer",
    "Job": "flywheel.rounds.job",
    "Policy": "curation.policy.policy",
    "Preset": "flywheel.presets",
    "Scorer": "flywheel.core.scorer",
    "UsageError": "flywheel.core.errors",
    "Workspace": "flywheel.core.workspace",
    "curate": "flywheel.rounds.run",
    "decode": "flywheel.core.image",
    "export": "flywheel.catalog.database",
    "load_policy": "curation.policy.reader",
    "load_preset": "flywheel.presets",
    "open": "dashboards.notebook:open_workspace",
    "query": "flywheel.catalog.database",
    "run": "flywheel.rounds.run",
    "verify": "curation.verify.checks",
}

__all__ = [
    "Item",
    "Job",
    "Policy",
    "Preset",
    "Scorer",
    "UsageError",
    "Workspace",
    "curate",
    "decode",
    "export",
    "load_policy",
    "load_preset",
    "open",
    "query",
    "run",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(importlib.import_module(module), attribute or name)


def __dir__() -> list[str]:
    return __all__
