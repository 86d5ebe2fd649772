"""Importers: public prompt files become suites, and a bad row is named."""

from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.signals.importers import import_suite
from flywheel.signals.suite import load_suite
from tests.flywheel.signals.test_benchmarks import suite_of

PROMPTS = Path(__file__).resolve().parents[4] / "shared" / "data" / "prompts"


@pytest.mark.parametrize(
    ("kind", "text", "fault"),
    [
        ("geneval", '{"tag": "counting"}', "row 1: not a geneval prompt"),
        ("geneval", "{", "line 1: not JSON"),
        ("geneval", "", "no prompts"),
        ("edit", '{"instruction": "x"}', "needs references"),
        ("edit", '{"instruction": "x", "image": "gone.png"}', "does not exist"),
        ("edit", '{"instruction": "x", "image": 5}', "row 1: not a edit prompt .*references are not a list of paths"),
        ("edit", f'{{"instruction": "x", "image": "{"x" * 400}"}}', "cannot be read .*: correct its path"),
        ("cvtg", '{"prompt": "x \\ud800", "texts": ["hi"]}', "row 1: not a cvtg prompt .*surrogates not allowed"),
        ("nothing", "{}", "unknown suite"),
    ],
)
def test_a_bad_suite_names_its_row(tmp_path: Path, kind: str, text: str, fault: str):
    with pytest.raises(UsageError, match=fault):
        suite_of(tmp_path, kind, text)
    assert not (tmp_path / "suite.jsonl").exists()


@pytest.mark.parametrize(
    ("kind", "name", "prompts"),
    [
        ("geneval", "geneval", 277),
        ("partiprompts", "partiprompts", 816),
        ("longtext", "longtext_en", 80),
        ("longtext", "longtext_zh", 80),
        ("dpg", "dpg_sample", 107),
    ],
)
def test_the_public_files_import(tmp_path: Path, kind: str, name: str, prompts: int):
    if not PROMPTS.is_dir():
        pytest.skip(f"no prompts at {PROMPTS}")
    assert import_suite(kind, PROMPTS / f"{name}.jsonl", tmp_path / "s.jsonl") == prompts
    suite = load_suite(tmp_path / "s.jsonl")
    assert all(p.checks for p in suite)
