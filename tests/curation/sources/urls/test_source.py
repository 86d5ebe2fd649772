"""URL lists as a source: what was fetched, and why the rest was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from curation.sources import BadInput, open_source
from curation.sources.urls.source import UrlList, lists_of
from curation.sources.urls.store import ANSWERS, Store
from flywheel.core.errors import UsageError
from flywheel.core.files import write_parquet
from flywheel.core.workspace import Workspace
from tests.curation.sources.urls.test_store import answer


def test_inputs_and_their_bytes_in_any_order(tmp_path: Path) -> None:
    store = Store(Workspace(tmp_path / "w"))
    names = [f"http://h/{n}" for n in range(150)]
    answers = [answer(n, "fetched", 1 + number % 7) for number, n in enumerate(names)] + [
        answer("http://h/bad", "refused")
    ]
    for part in range(2):
        table = pa.Table.from_pylist(answers[part::2], ANSWERS)
        write_parquet(store.root / "00001-a" / f"{part:05d}.parquet", table, row_group_size=16)
    path = tmp_path / "list.txt"
    path.write_text("\n".join([*reversed(names), "http://h/bad", "http://h/never-asked"]))
    source = open_source(path, store=store)
    assert isinstance(source, UrlList) and lists_of(source) == source.lists
    source.check()
    inputs = source.inputs()
    assert [i.uri for i in inputs] == [*reversed(names), "http://h/bad"]
    assert inputs[-1].fault == "refused: " and inputs[0].size == 1 + 149 % 7
    assert [len(c) for c in source.read(inputs[:150]) if isinstance(c, bytes)] == [i.size for i in inputs[:150]]
    (gone,) = source.read([replace(inputs[0], uri="http://h/other")])
    assert isinstance(gone, BadInput)


def test_a_list_needs_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("url\nhttp://h/1\n")
    with pytest.raises(UsageError, match="is a list of URLs: run `flywheel fetch` first"):
        open_source(tmp_path / "list.csv").inputs()
    with pytest.raises(UsageError, match="run `flywheel fetch` first"):
        open_source(tmp_path / "list.csv", store=Store(Workspace(tmp_path / "w"))).inputs()
