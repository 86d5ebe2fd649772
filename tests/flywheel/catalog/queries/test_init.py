"""Ready queries answer on empty and on filled workspaces."""

import json
from pathlib import Path

import pytest

from flywheel.cases.events import case_id, detect
from flywheel.catalog import database as catalog
from flywheel.catalog.queries import ready
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.flywheel.cases.builders import signal


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def test_ready_queries_answer(workspace: Workspace):
    assert all(catalog.query(workspace, q.sql) == [] for q in ready().values())
    Ledger(workspace, "signals").append([signal(p, "count", p == "a") for p in "abc"], key="s")
    Ledger(workspace, "case_events").append(detect([signal("b", "count", False)], {}, 1), key="d")
    result = {"fixed": [case_id("b", "count")], "broken": [case_id("z", "count")]}
    Ledger(workspace, "rounds").append([{"round": 2, "result": json.dumps(result)}], key="r")
    answers = {name: catalog.query(workspace, q.sql) for name, q in ready().items()}
    (rate,) = answers["failure_rate"]
    assert (rate["prompts"], rate["failures"], rate["failure_rate"]) == (3, 2, 0.6667)
    changes = {r["capability"]: (r["fixed"], r["broken"]) for r in answers["fixed_and_broken"]}
    assert changes == {"count": (1, 0), "never failed before": (0, 1)}
    assert [(r["status"], r["cases"]) for r in answers["open_cases"]] == [("detected", 1)]
