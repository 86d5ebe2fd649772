"""A suite as `flywheel suite show` prints it."""

from pathlib import Path

from flywheel.signals.shown import groups
from flywheel.signals.suite import write_rows


def test_prompts_are_grouped_by_what_judges_them(tmp_path: Path):
    def row(name: str, *checks: tuple[str, str]) -> dict:
        judged = [{"verifier": v, "capability": c, "text": "A"} for v, c in checks]
        return {"prompt_id": name, "prompt": name, "task": "t2i", "checks": judged}

    text, photo = ("text", "typography"), ("photo", "photorealism")
    file = write_rows(tmp_path / "suite.jsonl", [row("a", text), row("b", text), row("c", text, photo)])
    shown = groups(file)
    assert [(g["verifiers"], g["capabilities"], g["prompts"]) for g in shown] == [
        ("photo text", "photorealism typography", 1),
        ("text", "typography", 2),
    ]
    assert all(g["checks"] == [] for g in shown)  # not calibrated
