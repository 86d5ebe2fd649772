"""The inbox: each content counts once, whatever its file is called; a bad file costs itself."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flywheel.cli.main import app
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.inbox import collect
from tests.flywheel.signals.test_arena import world
from tests.flywheel.signals.test_mining import JUDGEMENTS


def drop(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    filled = Workspace(tmp_path / "w")
    events = [{"event_id": str(n), "prompt": "a cat", "thumbs": "down"} for n in range(3)]
    drop(filled.path("inbox", "feedback", "monday.jsonl"), [*events, {"event_id": "x"}])
    drop(filled.path("inbox", "judgements", "run.jsonl"), JUDGEMENTS)
    drop(filled.path("judgements", "own.jsonl"), JUDGEMENTS[:4])
    battles = [
        r | {"style_a": json.loads(r["style_a"]), "style_b": json.loads(r["style_b"])} for r in world(20, styles=True)
    ]
    drop(filled.path("inbox", "battles", "votes.jsonl"), battles)
    return filled


def test_everything_is_imported_once(workspace: Workspace):
    first = {r["source"]: r for r in collect(workspace)}
    assert first["inbox/feedback/monday.jsonl"] == {
        "source": "inbox/feedback/monday.jsonl",
        "signals": 3,
        "duplicates": 0,
        "quarantined": 1,
        "error": None,
    }
    assert first["inbox/judgements/run.jsonl"]["signals"] == 5 and first["judgements/own.jsonl"]["signals"] > 0
    assert first["inbox/battles/votes.jsonl"]["signals"] == 20
    before = {name: len(Ledger(workspace, name).rows()) for name in ("signals", "battles")}
    again = workspace.path("inbox", "feedback")
    (again / "tuesday.jsonl").write_bytes((again / "monday.jsonl").read_bytes())
    assert sum(r["signals"] for r in collect(workspace)) == 0
    assert before == {name: len(Ledger(workspace, name).rows()) for name in before}


def test_a_file_that_cannot_be_read_costs_itself(workspace: Workspace):
    workspace.path("inbox", "feedback", "bad.parquet").write_bytes(b"PAR1 but not really")
    workspace.path("inbox", "feedback", ".half.jsonl").write_text("{")  # still being written: not looked at
    out = CliRunner().invoke(app, ["signals", "collect", "-w", str(workspace.root), "--json"])
    errors = {r["source"]: r["error"] for r in json.loads(out.stdout.splitlines()[-1])}
    assert out.exit_code == 1
    assert [s for s, e in errors.items() if e] == ["inbox/feedback/bad.parquet"] and len(errors) == 6
    assert len(Ledger(workspace, "battles").rows()) == 20
