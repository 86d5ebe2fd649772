"""A folder of pictures, judged by a suite: a fault costs the rows of its own prompt."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from flywheel.cli.main import app
from flywheel.signals.suite import write_rows
from tests.flywheel.signals.test_calibration import trials


def test_missing_and_broken_pictures_are_rows_with_a_reason(tmp_path: Path):
    made = trials()
    rows = [
        {"prompt_id": t.prompt.prompt_id, "prompt": t.prompt.text, "task": "t2i", "checks": list(t.prompt.checks)}
        for t in made
    ]
    rows.append(
        {"prompt_id": "edit", "prompt": "x", "task": "ti2i", "references": ["no.png"], "checks": rows[0]["checks"]}
    )
    suite = write_rows(tmp_path / "suite.jsonl", rows)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    ids = [t.prompt.prompt_id for t in made]
    (pictures / f"{ids[0]}.png").write_bytes(made[0].picture)
    (pictures / f"{ids[1]}.jpg").write_bytes(made[0].picture)
    (pictures / f"{ids[2]}.png").write_bytes(made[0].picture[:50])
    out = CliRunner().invoke(app, ["suite", "judge", str(suite), "--pictures", str(pictures), "--json"])
    assert out.exit_code == 0, out.exception
    judged = json.loads(out.stdout.splitlines()[0] if out.stdout.startswith("[") else out.stdout.splitlines()[-1])
    assert [(r["prompt_id"], r["passed"]) for r in judged] == [*zip([*ids, "edit"], [True, False, None, None, None])]
    assert [r["check"] for r in judged] == ["object"] * 5 and judged[0]["score"] == 1.0
    assert "cannot be read" in judged[2]["reason"] and "there is no picture" in judged[3]["reason"]
    assert "no.png is missing" in judged[4]["reason"]
