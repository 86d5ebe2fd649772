"""A sample explained by its id, its first characters, or its file."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from curation.decide.explain import explain
from flywheel.core.errors import UsageError
from tests.curation.world import by_file


def test_explain(curated: SimpleNamespace) -> None:
    workspace, snapshot = curated.workspace, curated.result.snapshot
    explanation = explain(workspace, snapshot, "noise.png")
    (row,) = explanation["rows"]
    assert (row["filter"], row["stages"][-1]["filter"]) == ("entropy", "entropy")
    assert row["scores"]["pixels.entropy"] == row["score"]
    json.dumps(explanation)
    assert explain(workspace, snapshot, row["sample_id"])["rows"] == explanation["rows"]
    assert explain(workspace, snapshot, row["sample_id"][:10])["rows"] == explanation["rows"]
    assert len(explain(workspace, snapshot, by_file(curated, "decisions")["large.png"]["sample_id"])["rows"]) == 2
    assert explain(workspace, snapshot, "empty.jpg")["quarantine"][0]["reason"] == "zero bytes"
    with pytest.raises(UsageError, match="matches"):
        explain(workspace, snapshot, "nothing-like-it")
    with pytest.raises(UsageError, match="nothing has been curated"):
        explain(workspace, None, "noise.png")
