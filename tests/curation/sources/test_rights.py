"""Licence, address and consent from every kind of source end in the columns of the pool and of shards."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources.ingest import ingest
from curation.sources.rights import Rights, columns_of, merged, rights_of
from flywheel.core.schema import POOL, SHARD
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, write_folder
from tests.curation.sources.pooled import reasons, rows, write_tar


@pytest.mark.parametrize(
    ("row", "stated"),
    [
        ({}, Rights()),
        ({"license": "CC0-1.0", "source_url": "https://a.eu/1", "consent": True}, ("CC0-1.0", "https://a.eu/1", "yes")),
        ({"Licence": " CC-BY-4.0 ", "URL": "https://a.example/2"}, ("CC-BY-4.0", "https://a.example/2", None)),
        ({"license": "", "license_url": "https://l.example"}, ("https://l.example", None, None)),
        ({"license": 4, "consent": False}, ("4", None, "no")),
    ],
)  # fmt: skip
def test_names_that_sources_give_rights(row: dict, stated: tuple) -> None:
    assert rights_of(row) == stated


@pytest.mark.parametrize("row", [{"license": "x" * 5000}, {"url": "\ud800"}])
def test_what_is_no_name_is_refused(row: dict) -> None:
    with pytest.raises(ValueError, match="license|url"):
        rights_of(row)


def test_of_several_lines_the_first_that_states_something_counts() -> None:
    assert merged([Rights(None, "u"), Rights("CC0", "v")]) == ("CC0", "u", None)
    assert columns_of(["image", "URL", "text", "license"]) == ("URL", "license")


def test_every_kind_of_source_fills_the_columns(workspace: Workspace, tmp_path: Path) -> None:
    pictures = [encoded(texture(n, 40, 40)) for n in range(3)]
    stated = {"license": "CC-BY-4.0", "source_url": "https://a.example/p", "consent": "yes"}
    noted: dict[str, object] = {"a.png": {"caption": "a", **stated}, "b.png": "b"}
    ingest(workspace, write_folder(tmp_path / "folder", {"a.png": pictures[0], "b.png": pictures[0][:-9]}, noted))
    members = {"c.png": pictures[1], "c.json": json.dumps({"caption": "c", **stated}).encode()}
    ingest(workspace, write_tar(tmp_path / "c.tar", members))
    columns = {"image": [pictures[2]], "text": ["d"], "LICENSE": ["CC-BY-4.0"], "URL": ["https://a.example/p"]}
    pq.write_table(pa.table(columns | {"consent": [True]}), tmp_path / "d.parquet")
    ingest(workspace, tmp_path / "d.parquet")
    found = {r["caption"]: {k: r[k] for k in stated} for r in rows(workspace)}
    assert found == {"a": stated, "b": dict.fromkeys(stated), "c": stated, "d": stated}
    assert not reasons(workspace)
    assert set(stated) <= set(POOL.names) and set(stated) <= set(SHARD.names)
