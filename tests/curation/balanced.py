"""A policy that balances categories, and what its shards draw."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from curation.policy.policy import Policy
from curation.policy.reader import load_policy
from curation.run import curate
from flywheel.core.files import read_json
from flywheel.core.workspace import Workspace

KINDS = {"dog": 8, "car": 4, "cake": 2, "thing": 2}  # category animal, vehicle, food, other


STAGE = """\
[S6]
resolutions = [64]
enters = ["t2i"]

[S6.filters.broken_files]
check = "readable"

[S6.filters.balance]
check = "balance"
per = "category.name"
cap = {cap}
"""


def policy(folder: Path, text: str, cap: int = 100) -> Policy:
    path = folder / "mine.toml"
    path.write_text(STAGE.format(cap=cap) + text)
    return load_policy(path)


def drawn(workspace: Workspace, policy: Policy, **options: object) -> tuple[Counter[str], dict[str, float]]:
    """(rows of each kind in the shards, share of all draws by kind)."""
    manifest = Path(curate(workspace, policy, **options).manifest)
    rows: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    by_group = read_json(manifest)["weights"]
    for file in read_json(manifest)["files"]:
        for row in pq.read_table(manifest.parent / file["path"], columns=["caption", "balance"]).to_pylist():
            rows[row["caption"].split()[1]] += 1
            weights[row["caption"].split()[1]] += by_group.get(str(file["bucket"]), {}).get(row["balance"], 1.0)
    return rows, {kind: weight / weights.total() for kind, weight in weights.items()}
