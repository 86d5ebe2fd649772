"""A policy of one stage, and scoring in this process."""

from __future__ import annotations

from pathlib import Path

from curation.policy.policy import Policy
from curation.policy.reader import load_policy
from curation.run import configure
from curation.scorers.scoring import _score_pack, pending, references_of
from flywheel.core.workspace import Workspace

STAGE = """\
[S1]
resolutions = [64]
enters = ["t2i", "ti2i"]

[S1.filters.broken_files]
check = "readable"
"""


def policy(folder: Path, text: str) -> Policy:
    path = folder / "mine.toml"
    path.write_text(STAGE + text)
    return load_policy(path)


def scored(workspace: Workspace, policy: Policy) -> Workspace:
    """Scored in this process, in which other tests have loaded the networks already."""
    options = {name: policy.scorers.get(name, {}) for name in configure(policy)[0]}
    for pack, todo in pending(workspace, options):
        _score_pack(pack.shards, todo, references_of(workspace, [s.path for s in pack.shards]))
    return workspace
