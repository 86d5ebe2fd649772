"""Captions as they come: forms and encodings that are read, and what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.sources.captions import OddLine, annotation, beside, read_captions
from curation.sources.ingest import ingest
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, write_folder


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file": "nope.png", "caption": "x"}', "line 1: names 'nope.png'"),
        ('{"file": "../a.png", "caption": "x"}', "line 1: names"),
        ('{"file": "a.png", "caption": "x", "references": ["z.png"]}', "'z.png'"),
        ("{not json}", "line 1"),
        ('{"caption": "x"}', 'line 1: no "file" key'),
        ('{"file": "a.png", "caption": 7}', "line 1.*caption"),
        ('{"file": "a.png", "captions": [{"kind": "poem", "text": "x"}]}', "line 1.*poem"),
        ('{"file": "a.png", "caption": "\\ud800"}', "line 1.*Unicode"),
    ],
)
def test_wrong_captions_say_what_and_where(workspace: Workspace, tmp_path: Path, line: str, message: str) -> None:
    source = write_folder(tmp_path / "src", {"a.png": encoded(texture(1))})
    captions = tmp_path / "said.jsonl"
    captions.write_text(line + "\n")
    with pytest.raises(UsageError, match=message):
        ingest(workspace, source, captions)
    assert not workspace.batches()


LINES = [{"file": "a.png", "caption": "première ligne\u2028"}, {"file": "b.png", "caption": "二"}]
JSONL = "\n".join(json.dumps(line, ensure_ascii=False) for line in LINES)


@pytest.mark.parametrize(
    "content",
    [
        JSONL.encode(), JSONL.encode("utf-8-sig"), JSONL.replace("\n", "\r\n").encode(), JSONL.encode("utf-16"),
        b"\xfe\xff" + JSONL.replace("\n", "\r\n").encode("utf-16-be"), JSONL.encode("utf-32"),
        json.dumps(LINES).encode(), b"\xef\xbb\xbf\n" + json.dumps(LINES, indent=2).encode(),
        json.dumps(LINES).encode("utf-16"),
    ],
)  # fmt: skip
def test_captions_of_any_unicode_encoding_and_arrays(content: bytes) -> None:
    found = [line for line in read_captions(content) if not isinstance(line, OddLine)]
    assert [(name, note.captions[0][1]) for _, name, note in found] == [tuple(line.values()) for line in LINES]


def test_a_line_that_is_wrong_costs_itself() -> None:
    odd = (
        b'[[[\n{"file": "a.png", "caption": "raw\ttab", "seed": '
        + b"9" * 6000
        + b'}\n{"file": "b.png", "caption": "\xe9"}'
    )
    first, sound, last = read_captions(odd)
    assert isinstance(first, OddLine) and isinstance(last, OddLine) and "not UTF-8" in last.fault
    assert not isinstance(sound, OddLine) and sound[2].captions == (("general", "raw\ttab"),)


def test_one_rule_for_the_texts_of_a_picture() -> None:
    def texts(row: dict) -> list[str]:
        return [text for _, text in annotation(row).captions]

    assert texts({"caption": ["x", "y"]}) == texts({"captions": ["x", "y", "x", None]}) == ["x", "y"]
    assert texts({"Captions": [{"caption": "x", "id": 1}, {"kind": "text", "text": "y"}]}) == ["x", "y"]
    assert texts({"TEXT": ["x", "y"]}) == ["x", "y"]
    assert texts({"text": [3], "prompt": "x"}) == ["x"]
    assert texts({"TEXT": "x", "width": 3}) == texts({"caption": "", "prompt": "x"}) == ["x"]
    assert texts({"caption": "x", "text": "not it"}) == ["x"] and texts({"width": 3}) == []
    assert texts({"caption": None, "text": "x"}) == texts({"prompt": "", "caption": " ", "text": "x"}) == ["x"]
    for wrong in ({"caption": None}, {"caption": [3]}, {"captions": [{"id": 1}]}, {"captions": {"en": "x"}}):
        with pytest.raises(ValueError, match="caption"):
            annotation(wrong)
    assert beside({"json": b'{"width": 3}', "caption": "é".encode("utf-16")}).captions == (("general", "é"),)


def test_captions_that_are_a_list_in_a_text() -> None:
    """As a column of a CSV or Parquet file holds them."""
    assert annotation({"captions": '["one", "two"]'}).captions == (("general", "one"), ("general", "two"))
    assert annotation({"captions": "[sic] one"}).captions == (("general", "[sic] one"),)
