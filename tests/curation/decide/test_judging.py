"""The scored pool as a judgement sees it: every row has a place, the policy has the checks of what is held out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from curation.decide.judging import HeldOut, open_judging, sample_ids
from curation.policy import sql
from curation.run import configure
from curation.sources import pool
from curation.sources.ingest import ingest
from flywheel.core.workspace import Workspace
from tests.curation.corpus import textures, write_folder
from tests.curation.one_stage import policy, scored


@pytest.fixture(scope="module")
def two_batches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Five scored pictures, of which two came later."""
    root = tmp_path_factory.mktemp("judging")
    workspace, one_stage = Workspace(root / "w"), policy(root, "")
    files = textures(5)
    for name, part in (("first", list(files.items())[:3]), ("second", list(files.items())[3:])):
        ingest(workspace, write_folder(root / name, dict(part)))
    scored(workspace, one_stage)
    yield SimpleNamespace(workspace=workspace, policy=one_stage, scorers=configure(one_stage)[0])


def test_rows_are_numbered_through_all_batches(two_batches: SimpleNamespace) -> None:
    workspace, scorers = two_batches.workspace, two_batches.scorers
    ids = [i for s in pool.shards(workspace) for i in pq.read_table(s.path)["sample_id"].to_pylist()]
    with open_judging(workspace, two_batches.policy, scorers, HeldOut()) as judging:
        rows = judging.query("SELECT n, sample_id FROM every ORDER BY n").to_pylist()
        assert [(r["n"], r["sample_id"]) for r in rows] == list(enumerate(ids))
        assert {"header.short_edge", "pixels.sharpness"} <= judging.columns and len(judging.tables) == 2
    assert sample_ids(workspace, scorers, np.array([4, 0])) == [ids[0], ids[4]]
    assert sample_ids(workspace, scorers, np.array([], np.int64)) == []


@pytest.mark.parametrize(
    ("held_out", "checks"),
    [
        (HeldOut(), set()),
        (HeldOut(ids=frozenset({"a"})), {sql.HELD_OUT}),
        (HeldOut(prompts=frozenset({"a dog"})), {sql.DECONTAMINATION}),
    ],
)
def test_the_policy_checks_what_is_held_out(two_batches: SimpleNamespace, held_out: HeldOut, checks: set[str]) -> None:
    with open_judging(two_batches.workspace, two_batches.policy, two_batches.scorers, held_out) as judging:
        names = {f.name for stage in judging.policy.stages for f in stage.filters}
    assert names == {"broken_files"} | checks


def test_a_pool_without_rows_can_be_judged(two_batches: SimpleNamespace, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    with open_judging(workspace, two_batches.policy, two_batches.scorers, HeldOut()) as judging:
        assert judging.query('SELECT sample_id, "header.short_edge" FROM every').num_rows == 0
