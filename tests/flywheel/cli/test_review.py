"""A reviewer works through the queue by the command."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from flywheel.cli.main import app
from flywheel.core.errors import UsageError
from flywheel.core.files import write_parquet
from flywheel.core.workspace import Workspace
from flywheel.remedies import data
from flywheel.remedies.review import Queue
from tests.flywheel.remedies.queued import row


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def test_a_reviewer_works_through_the_command(workspace: Workspace):
    rows = [row(n, n / 3) for n in range(3)]
    table = [{"sample_id": r["sample_id"], "slice": "count", "image": b"png", "references": [b"ref"]} for r in rows]
    path = workspace.round(2).remedies / "candidates.parquet"
    write_parquet(path, pa.Table.from_pylist(table, schema=data.CANDIDATE))
    Queue(workspace).add(2, rows)

    def review(*arguments: str, ok: bool = True) -> dict:
        reviewer = [] if arguments[0] == "status" else ["--reviewer", "ada"]
        out = CliRunner().invoke(app, ["review", *arguments, *reviewer, "-w", str(workspace.root), "--json"])
        if not ok:
            raise out.exception
        assert out.exit_code == 0, out.output
        return json.loads(out.stdout)

    reviewed = []
    for verb, *more in (["accept"], ["edit", "two red cats"], ["reject", "--reason", "blurred"]):
        item = review("next")
        assert Path(item["image"]).read_bytes() == b"png" and Path(item["references"][0]).read_bytes() == b"ref"
        reviewed.append(review(verb, item["item"][:8], *more))
    assert [s["outcome"] for s in reviewed] == ["accepted", "accepted", "rejected"]
    assert reviewed[1]["caption"] == "two red cats"
    assert review("next") is None
    assert [(r["accepted"], r["rejected"]) for r in review("status")] == [(2, 1)]
    with pytest.raises(UsageError, match="holds no claim"):
        review("accept", reviewed[0]["item"], ok=False)
