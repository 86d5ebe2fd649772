"""The verbs, from a public suite and users' events to routed cases and ratings."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flywheel.cli.main import app
from flywheel.core.errors import UsageError
from tests.flywheel.signals.test_arena import world
from tests.flywheel.signals.test_benchmarks import GENEVAL
from tests.flywheel.signals.test_mining import JUDGEMENTS


def flywheel(*arguments: object) -> Any:
    """The verb's JSON. Errors: what it raised."""
    out = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if out.exception:
        raise out.exception
    return json.loads(out.stdout.splitlines()[-1])


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_from_suites_and_users_to_routed_cases(tmp_path: Path):
    w = tmp_path / "w"
    suite = tmp_path / "suite.jsonl"
    assert flywheel("suite", "import", "geneval", lines(tmp_path / "g", GENEVAL), "--output", suite)["prompts"] == 4
    with pytest.raises(UsageError, match="never replaced"):
        flywheel("suite", "import", "geneval", tmp_path / "g", "--output", suite)
    shown = flywheel("suite", "show", suite)
    assert [(r["group"], r["capabilities"], r["prompts"]) for r in shown][0] == ("colors", "color", 1)
    outputs = [{"prompt_id": f"geneval-{n:05d}", "detections": []} for n in range(4)]
    scored = flywheel("suite", "score", suite, lines(tmp_path / "o", outputs), "-w", w, "--checkpoint", "ours")
    assert scored["score"] == 0 and scored["images"] == 4
    with pytest.raises(UsageError, match="no held-out suite yet"):
        flywheel("suite", "show", "-w", w)
    (w / "suite").mkdir()
    (w / "suite" / "suite.jsonl").write_bytes(suite.read_bytes())
    assert flywheel("suite", "show", "-w", w) == shown
    assert flywheel("signals", "mine", lines(tmp_path / "j.jsonl", JUDGEMENTS), "-w", w)["self"] == 2
    event = {"event_id": "1", "prompt": "A photo of two cats", "thumbs": "down", "reason": "there are too many cats"}
    counts = flywheel("signals", "import", lines(tmp_path / "f.jsonl", [event, {}]), "-w", w)
    assert (counts["imported"], counts["quarantined"]) == (1, 1)
    assert flywheel("signals", "fold", "-w", w) == {"recorded": 0}
    routed = flywheel("signals", "route", "-w", w)
    assert routed["events"] == {"detected": 8}  # the user's is the suite's own failing prompt
    assert routed["tracks"] == {"rl": 1, "unsure": 2}  # what the seeds of training tell
    assert flywheel("signals", "route", "-w", w) == {"events": {}, "tracks": {}}
    cases = flywheel("cases", "-w", w, "--capability", "count")
    assert [c["prompt_id"] for c in cases] == ["geneval-00001"]


def test_ratings_per_capability(tmp_path: Path):
    w = tmp_path / "w"
    rows = [
        r | {"style_a": json.loads(r["style_a"]), "style_b": json.loads(r["style_b"])} for r in world(300, styles=True)
    ]
    assert flywheel("arena", "import", lines(tmp_path / "b.jsonl", rows), "-w", w)["imported"] == 300
    ratings = flywheel("arena", "ratings", "-w", w, "--rounds", 20, "--style")
    assert {r["capability"] for r in ratings} == {"overall", "text"} and len(ratings) == 10
    assert all(r["low"] < r["rating"] < r["high"] for r in ratings)
    with pytest.raises(UsageError, match="no such battles"):
        flywheel("arena", "ratings", "-w", w, "--capability", "slides")
    with pytest.raises(UsageError, match="FLYWHEEL_FEEDBACK_TOKEN"):
        CliRunner().invoke(app, ["signals", "serve", "-w", str(w)], catch_exceptions=False)
