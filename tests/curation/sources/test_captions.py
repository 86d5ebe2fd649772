"""Captions that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.sources import pool
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
    assert not pool.batches(workspace)
