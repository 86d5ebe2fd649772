"""Written captions in the scores and in the training shards."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.captioning.written import with_written
from curation.policy.reader import load_policy
from curation.run import curate
from curation.sources import pool
from flywheel.core.files import read_json
from flywheel.core.workspace import Workspace
from tests.curation.captioning.server import GOOD, Server, captioner, run
from tests.curation.corpus import tree


def test_a_written_caption_fills_the_place_of_one_that_says_nothing(tmp_path: Path) -> None:
    written = {"sample_id": "s", "source_uri": "u", "kind": "general", "caption": "a dog", "error": None}
    path = tmp_path / "fill" / "model" / "b-00000.x.parquet"
    path.parent.mkdir(parents=True)
    columns = written | {"use": "fill", "model": "m", "prompt": "p"}
    pq.write_table(pa.Table.from_pylist([columns]), path)
    row = {"sample_id": "s", "source_uri": "u", "task": "t2i", "captions": []}
    told = with_written([row | {"caption": own} for own in (" \n", "&nbsp;", "a cat")], [path])
    assert [r["caption"] for r in told] == ["a dog", "a dog", "a cat"]


def test_curation_judges_and_shards_the_caption_that_fills_a_gap(
    workspace: Workspace, server: Server, ray_session: None
) -> None:
    policy = load_policy("demo")
    before = curate(workspace, policy, captioned=True)
    scores = tree(workspace.path("scores"))
    run(workspace, captioner(server))
    run(workspace, captioner(server, model="other"), use="add")
    after = curate(workspace, policy, captioned=True)
    assert after.snapshot != before.snapshot
    assert after.admitted == before.admitted + 3
    assert {k: v for k, v in tree(workspace.path("scores")).items() if k in scores} == scores
    new = {k.split("@")[0] for k in tree(workspace.path("scores")) if k not in scores}
    assert new == {"text", "caption", "ocr"} & {k.split("@")[0] for k in scores}, "only readers of captions score again"
    (shard,) = pool.shards(workspace)
    assert "a caption of its own" in pq.read_table(shard.path)["caption"].to_pylist()  # the pool is as it was
    rows: dict[str, dict] = {}
    for file in read_json(Path(after.manifest))["files"]:
        rows |= {r["caption"]: r for r in pq.read_table(Path(after.manifest).parent / file["path"]).to_pylist()}
    own, filled = rows["a caption of its own"], rows[GOOD["caption"]]
    assert [c["origin"].split("@")[0] for c in own["captions"]] == ["source", "other"]
    assert [c["origin"].split("@")[0] for c in filled["captions"]] == ["other"], "both models wrote it: kept once"
    assert [c["origin"] for c in rows["mend it"]["captions"]] == ["source"]
    run(workspace, captioner(server), use="replace")
    replaced = curate(workspace, policy)
    assert replaced.admitted <= after.admitted
    for file in read_json(Path(replaced.manifest))["files"]:
        shown = pq.read_table(Path(replaced.manifest).parent / file["path"]).to_pylist()
        assert {r["caption"] for r in shown} <= {GOOD["caption"], "mend it"}
