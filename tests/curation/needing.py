"""A scorer that needs more than one CPU, and tells what it was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from flywheel.core.schema import column
from flywheel.core.scorer import Item, Resources


class Needing:
    """Two CPUs, a GPU where there is one, and five rows at once."""

    name = "needing"
    version = "1"
    fields = (
        column("cpus", pa.float64(), "CPUs of the task"),
        column("together", pa.int32(), "rows that came at once"),
        column("pid", pa.int64(), "process"),
    )
    resources = Resources(cpus=2, gpus=1, batch=5)

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item."""
        import os

        import ray

        given = ray.get_runtime_context().get_assigned_resources()
        return [{"cpus": given["CPU"], "together": len(items), "pid": os.getpid()} for _ in items]
