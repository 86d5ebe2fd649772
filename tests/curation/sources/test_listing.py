"""What is new, known, or told otherwise, against the plain definition: keys in a dictionary, the last plan counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources import Input
from curation.sources.listing import (
    LISTED,
    PLAN,
    compared,
    input_of,
    known_addresses,
    listing,
    read_plan,
    row_of,
)
from curation.sources.rights import Rights
from flywheel.core.files import write_json, write_parquet
from flywheel.core.workspace import Workspace


def _planned(workspace: Workspace, name: str, inputs: Sequence[Input], finished: bool = True) -> Path:
    batch = workspace.path("pool", name)
    rows = [row_of(i) | {"chunk": n // 3} for n, i in enumerate(inputs)]
    write_parquet(batch / "plan.parquet", pa.Table.from_pylist(rows, schema=PLAN), row_group_size=4)
    if finished:
        write_json(batch / "manifest.json", {"shards": [], "rows": 0, "quarantined": 0})
    return batch


def _inputs(rng: np.random.Generator, count: int) -> list[Input]:
    """Inputs of few names, so that many keys are equal, or differ in one part."""
    texts = ((), (("general", "a"),), (("general", "b"), ("text", "c")))
    return [
        Input(
            f"/p/{rng.integers(6)}.png",
            int(rng.integers(2)),
            int(rng.integers(2)),
            task=str(rng.choice(["t2i", "ti2i"])),
            captions=texts[rng.integers(3)],
            references=("/p/r.png",) if rng.random() < 0.3 else (),
            rights=Rights("CC0", None, "yes") if rng.random() < 0.3 else Rights(),
            fault="odd" if rng.random() < 0.1 else None,
        )
        for _ in range(count)
    ]


def _source(inputs: Sequence[Input]) -> Any:
    def each() -> Iterator[Input]:
        yield from inputs

    return SimpleNamespace(each=each)


@pytest.mark.parametrize("seed", range(6))
def test_new_and_known_are_those_of_the_plain_definition(tmp_path: Path, seed: int) -> None:
    rng, workspace = np.random.default_rng(seed), Workspace(tmp_path / "w")
    batches = [_inputs(rng, int(rng.integers(0, 9))) for _ in range(int(rng.integers(0, 3)))]
    for number, inputs in enumerate(batches):
        _planned(workspace, f"{number:05d}-x", inputs)
    unfinished = _planned(workspace, "00009-x", _inputs(rng, 3), finished=False)
    listed = _inputs(rng, 30)
    known = {i.key: i.captions for inputs in batches for i in inputs}
    with listing(_source(listed)) as (path, count), compared(workspace, path, count) as found:
        fresh = [input_of(r) for batch in found.fresh_rows() for r in batch.to_pylist()]
        assert fresh == [i for i in listed if i.key not in known] and found.fresh == len(fresh) and count == 30
        assert found.fresh_sizes().tolist() == [i.size for i in fresh]
        mine = {i.key for _, i in read_plan(unfinished)}
        assert found.among([unfinished]) == sum(i.key in mine for i in listed) and found.among([]) == 0
        told = ["/p/0.png"]
        asked = [i for i in listed if i.key in known and i.task == "t2i" and i.captions]
        wanted = [(i, known[i.key]) for i in asked if i.captions != known[i.key] or i.uri in told]
        assert list(found.told_otherwise(told)) == wanted


def test_a_plan_is_read_by_chunk_and_by_address(tmp_path: Path) -> None:
    workspace, inputs = Workspace(tmp_path / "w"), _inputs(np.random.default_rng(0), 20)
    batch = _planned(workspace, "00001-x", inputs)
    every = list(zip([n // 3 for n in range(20)], inputs))
    assert read_plan(batch) == every
    assert read_plan(batch, chunks=[2, 5]) == [(n, i) for n, i in every if n in (2, 5)]
    assert read_plan(batch, uris=["/p/3.png"]) == [(n, i) for n, i in every if i.uri == "/p/3.png"]
    assert read_plan(batch, uris=[]) == []


def test_addresses_that_an_earlier_plan_had(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    batch = _planned(workspace, "00002-x", [Input("/a"), Input("/b")], finished=False)
    assert known_addresses(workspace, batch) == []
    _planned(workspace, "00001-x", [Input("/b", 7), Input("/c")])
    assert known_addresses(workspace, batch) == ["/b"]


def test_a_plan_of_an_older_version_is_compared_too(tmp_path: Path) -> None:
    """It has neither masks nor rights."""
    workspace, inputs = Workspace(tmp_path / "w"), [Input("/a"), Input("/b", captions=(("general", "x"),))]
    batch = workspace.path("pool", "00001-x")
    rows = [row_of(i) | {"chunk": 0} for i in inputs]
    older = pa.Table.from_pylist(rows, schema=PLAN).drop_columns(["mask", "rights"])
    write_parquet(batch / "plan.parquet", older)
    write_json(batch / "manifest.json", {"shards": [], "rows": 0, "quarantined": 0})
    with listing(_source([*inputs, Input("/c")])) as (path, count), compared(workspace, path, count) as found:
        assert [r["uri"] for batch_ in found.fresh_rows() for r in batch_.to_pylist()] == ["/c"]
        assert pq.read_schema(path).names == LISTED.names
