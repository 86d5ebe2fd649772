"""What a run imports, imported once: runs that are forked from a process that has it start in a tenth of a second.

To be named in `set_forkserver_preload`. Nothing here opens a file, a model, a thread or a connection.
"""

from __future__ import annotations

import importlib
import sys

_MODULES = (
    "flywheel.core.torchvision_shim",
    "torch",
    "torch.optim",
    "torch._dynamo",
    "flywheel.cli.main",
    "flywheel.rounds.run",
    "flywheel.catalog.database",
    "curation.run",
    "curation.policy.reader",
    "curation.scorers.scoring",
    "curation.synthesis",
    "curation.verify.checks",
    "dashboards.report",
    "training.phase",
    "training.rl.trainer",
    "training.dmd.trainer",
    "training.sampling",
    "flywheel.remedies.enhancer_training",
    "ray",
    "duckdb",
    "deltalake",
    "pyarrow.dataset",
)


for _name in _MODULES:
    importlib.import_module(_name)
    if _name.endswith("torchvision_shim"):
        sys.modules[_name].declare_operators()
for _name in ("transformers", "trl", "datasets", "peft"):
    importlib.import_module(_name)
