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


DPG = (
    "item_id,text,proposition_id,dependency,category_broad,tuple,question_natural_language\r\n"
    'a,"a red, round ball",1,0,attribute,attribute - color (ball),"Is it red?"\r\n'
    "\r\n"
    'b,"two\r\nlines",1,0,global,,Is it so?\r\n'
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", [",", ";", "sep=;"])
def test_tables_are_read_as_spreadsheets_write_them(tmp_path: Path, form: str, encoding: str):
    text = DPG if form == "," else DPG.replace("a red, round", "a red round").replace(",", ";")
    (tmp_path / "in.CSV").write_bytes(("sep=;\r\n" * (form == "sep=;") + text).encode(encoding))
    assert import_suite("dpg", tmp_path / "in.CSV", tmp_path / "s.jsonl") == 2
    red, two = load_suite(tmp_path / "s.jsonl")
    assert (red.text, two.text) == ("a red round ball" if ";" in form else "a red, round ball", "two\r\nlines")
    assert [p.checks[0]["capability"] for p in (red, two)] == ["color", "aesthetics"]


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("in.csv", 'id,prompt\n1,"open\n2,two\n3,three\n', "line 2: not a CSV line: a quote is opened and not closed"),
        ("in.tsv", 'Prompt\tCategory\tChallenge\n"open\tArts\tBasic\na dog\tArts\tBasic\n', "line 2: not a CSV line"),
        ("in.csv", 'id,"prompt\n1,one\n', "line 1: not a CSV line"),
        ("in.csv", "id,prompt\n1,one\n2\n", "line 3: has more or fewer fields than the header"),
        ("in.csv", b"id,prompt\n1,caf\xe9\n", "is not UTF-8 text"),
    ],
)
def test_a_line_of_a_table_that_is_none_is_named(tmp_path: Path, name: str, text: str | bytes, fault: str):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=fault):
        import_suite("partiprompts" if name == "in.tsv" else "dpg", tmp_path / name, tmp_path / "s.jsonl")


def test_nan_is_nothing_and_no_check_holds_it(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"x")
    row = '\ufeff\n{"instruction": "mend", "image": "a.png", "category": NaN, "score": Infinity}\n\n'
    (prompt,) = suite_of(tmp_path, "edit", row)
    assert prompt.category == "edit"
    (tmp_path / "suite.jsonl").unlink()
    with pytest.raises(UsageError, match="row 1: .*a check holds null or NaN"):
        suite_of(
            tmp_path, "geneval", '{"tag": "counting", "prompt": "x", "include": [{"class": "a", "count": NaN}]}', "b"
        )
