"""Balance and rights as SQL on a scored pool: caps, quotas and the long tail; licences that may train."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from curation.decide.judge import judge
from curation.policy.policy import Policy
from curation.policy.what_if import lines
from curation.run import configure
from curation.sources.ingest import ingest
from flywheel.core.files import read_json, write_parquet
from flywheel.core.workspace import Workspace
from tests.curation import one_stage
from tests.curation.balanced import drawn, policy
from tests.curation.corpus import encoded, texture, write_folder


def test_caps_by_category(pictured: SimpleNamespace) -> None:
    rows, share = drawn(pictured.workspace, policy(pictured.root, "caps = { vehicle = 1 }", cap=5))
    assert rows == {"dog": 5, "car": 1, "cake": 2, "thing": 2}
    assert share == pytest.approx({k: n / 10 for k, n in rows.items()})  # neither quotas nor tail: as they come


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ('allow = ["CC-BY-*", "cc0-1.0"]', {"by", "zero"}),
        ('allow = ["cc-by-4.0"]\nunknown = "keep"', {"by", "none"}),
        ('deny = ["*proprietary*"]', {"by", "zero", "odd", "none"}),
        ('allow = ["*"]\ndeny = ["*proprietary*"]', {"by", "zero", "odd"}),
        ('unknown = "drop"', {"by", "zero", "odd", "owned"}),
        ('allow = ["100%_free"]', {"odd"}),
    ],
)
def test_a_policy_names_the_licences_that_may_train(tmp_path: Path, options: str, kept: set[str]) -> None:
    licences = {
        "by": "CC-BY-4.0",
        "zero": "CC0-1.0",
        "odd": "100%_free",
        "owned": "All Rights: Proprietary",
        "none": None,
    }
    named = {f"{n}.png": {"caption": n, "license": text} for n, text in licences.items()}
    source = write_folder(tmp_path / "src", {f: encoded(texture(n, 40, 40)) for n, f in enumerate(named)}, named)
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, source)
    rule = one_stage.policy(tmp_path, f'[S1.filters.licence]\ncheck = "rights"\nof = "license"\n{options}\n')
    one_stage.scored(workspace, rule)
    decisions = judge(workspace, rule, configure(rule)[0]).read("decisions").to_pylist()
    assert {Path(d["source_uri"]).stem for d in decisions if d["outcome"] == "admitted"} == kept
    assert {d["filter"] for d in decisions} <= {None, "licence"}
    assert Policy.from_record(json.loads(json.dumps(rule.record()))) == rule
    assert "of license" in lines(rule)[-1]["options"]


def test_each_reference_is_judged_too_where_the_filter_says_so(tmp_path: Path) -> None:
    """The least value counts against min, the greatest against max; rows without references are judged as before."""
    pictures = {f"{side}.png": encoded(texture(side, side, side)) for side in (70, 80, 100, 120)}
    edits = {"sound": [80], "small": [80, 70], "large": [120, 80], "first": [70, 80], "several": [80, 100, 80]}
    named = {f"{n}.png": {"caption": "turn it", "references": [f"{r}.png" for r in of]} for n, of in edits.items()}
    files = pictures | {f: encoded(texture(n, 90, 90)) for n, f in enumerate(named)}
    source = write_folder(tmp_path / "src", files, named)
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, source)
    ends = {}
    for too in ("false", "true"):
        text = '[S1.filters.size]\nscore = "header.short_edge"\nmin = 75\nmax = 110\nreferences = ' + too
        rule = one_stage.policy(tmp_path, text + "\n")
        one_stage.scored(workspace, rule)
        decisions = judge(workspace, rule, configure(rule)[0]).read("decisions").to_pylist()
        ends[too] = {Path(d["source_uri"]).stem: (d["score"], d["threshold"]) for d in decisions if d["filter"]}
    alone = {"70": (70, 75), "120": (120, 110)}
    assert ends == {"false": alone, "true": alone | {"small": (70, 75), "first": (70, 75), "large": (120, 110)}}
    assert lines(rule)[-1]["options"] == "references too"
    assert Policy.from_record(json.loads(json.dumps(rule.record()))) == rule


def test_a_pool_of_an_older_version_states_no_rights(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, write_folder(tmp_path / "src", {"a.png": encoded(texture(0, 40, 40))}, {"a.png": "a"}))
    for batch in workspace.batches():
        manifest = read_json(batch / "manifest.json")
        path = batch / manifest["shards"][0]["path"]
        write_parquet(path, pq.read_table(path).drop_columns(["license", "source_url", "consent"]))
    rule = one_stage.policy(tmp_path, '[S1.filters.licence]\ncheck = "rights"\nof = "license"\ndeny = ["x"]\n')
    one_stage.scored(workspace, rule)
    assert judge(workspace, rule, configure(rule)[0]).counts["admitted"] == 1
