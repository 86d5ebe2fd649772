"""What-if answers equal what curating again would have decided, and touch nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from curation.policy.reader import load_policy
from curation.policy.what_if import basis, changes, lines, parse_settings, what_if, with_settings
from curation.run import curate, funnel
from curation.sources.ingest import ingest
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, textures, tree, write_folder


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[SimpleNamespace]:
    """A curated pool of five pictures of 120 pixels, one of 200, a near-duplicate of it, and a prompt kept out."""
    root = tmp_path_factory.mktemp("scored")
    large = texture(40, 200, 200)
    files = textures(5) | {
        "large.png": encoded(large),
        "near.jpg": encoded(large.resize((180, 180)), "JPEG", quality=60),
    }
    source = write_folder(root / "src", files, {n: f"the picture {n} here" for n in files})
    workspace = Workspace(root / "w")
    ingest(workspace, source)
    prompts = frozenset({"the picture picture-004.jpg here"})
    result = curate(workspace, load_policy("demo"), exclude_prompts=prompts)
    yield SimpleNamespace(workspace=workspace, result=result, prompts=prompts)


def ids(scored: SimpleNamespace, snapshot: str) -> dict[str, tuple[str, str]]:
    """File name → (sample id, outcome)."""
    rows = pq.read_table(scored.workspace.path("snapshots", snapshot, "decisions.parquet")).to_pylist()
    return {Path(r["source_uri"]).name: (r["sample_id"], r["outcome"]) for r in rows}


def test_what_leaves_is_what_curating_again_would_drop(scored: SimpleNamespace) -> None:
    workspace = scored.workspace
    base = basis(workspace, scored.result.snapshot)
    before = tree(workspace.root)
    answer = what_if(workspace, base, with_settings(base.policy, parse_settings(["S1.resolution.min=130"])))
    assert tree(workspace.root) == before
    assert answer["changes"] == [{"line": "S1.resolution.min", "before": 64, "after": 130.0}]
    again = curate(workspace, load_policy("demo").replace("S1.resolution.min", 130), exclude_prompts=scored.prompts)
    old, new = ids(scored, scored.result.snapshot), ids(scored, again.snapshot)
    left = [i for n, (i, outcome) in old.items() if outcome == "admitted" and new[n][1] == "dropped"]
    admitted = answer["admitted"]
    assert (admitted["before"], admitted["after"]) == (scored.result.admitted, again.admitted)
    assert (admitted["leaves"], admitted["leaving"]) == (len(left), left) and len(left) == 4
    assert (admitted["enters"], admitted["entering"]) == (0, [])
    cells = {(r["stage"], r["bucket"]): r for r in answer["stages"]}
    assert len(cells) == 11 and cells["S1", 64]["leaving"] == left
    assert cells["S5", 192]["before"] == cells["S5", 192]["after"] == 1
    (entry,) = [r for r in answer["funnel"] if r["filter"] == "resolution" and r["stage"] == "S1"]
    assert (entry["dropped_before"], entry["dropped_after"]) == (0, 4)


def test_what_enters(scored: SimpleNamespace) -> None:
    base = basis(scored.workspace, scored.result.snapshot)
    loose = with_settings(base.policy, {"S1.deduplication.hamming": 0, "S1.deduplication.colour": 0})
    answer = what_if(scored.workspace, base, loose)
    near = ids(scored, scored.result.snapshot)["near.jpg"][0]
    assert answer["admitted"]["entering"] == [near] and answer["admitted"]["leaves"] == 0
    assert not what_if(scored.workspace, base, base.policy)["funnel"]


def test_a_filter_that_does_not_act_says_so(scored: SimpleNamespace) -> None:
    base = basis(scored.workspace, scored.result.snapshot)
    answer = what_if(scored.workspace, base, base.policy.replace("S4.aesthetic.min", 9))
    assert "clip is not configured" in answer["not_configured"]["clip"]
    assert answer["admitted"]["leaves"] == 0


def test_the_evaluation_of_the_snapshot_is_kept(scored: SimpleNamespace) -> None:
    base = basis(scored.workspace, scored.result.snapshot)
    assert base.held_out.prompts == {"the picture picture 004 jpg here"}
    assert funnel(scored.workspace, base.policy, base.held_out) == list(scored.result.funnel)
    replaced = basis(scored.workspace, scored.result.snapshot, "qwen-image-2")
    assert (replaced.policy.name, replaced.held_out) == ("qwen-image-2", base.held_out)
    with pytest.raises(UsageError, match="nothing has been curated"):
        basis(scored.workspace, None)


def test_a_moved_range_never_passes_through_an_empty_one() -> None:
    policy = load_policy("demo")
    moved = with_settings(policy, {"S1.entropy.min": 11.0, "S1.entropy.max": 12.0})
    assert (moved.number("S1.entropy.min"), moved.number("S1.entropy.max")) == (11.0, 12.0)
    back = with_settings(moved, {"S1.entropy.max": 10.8, "S1.entropy.min": 0.05})
    assert back.sha256 == policy.sha256
    with pytest.raises(UsageError, match="is over max"):
        with_settings(policy, {"S1.entropy.min": 13.0, "S1.entropy.max": 12.0})


@pytest.mark.parametrize("text", ["S4.aesthetic.min", "S4.aesthetic.min=high", "=5", "S4.aesthetic.min=nan"])
def test_settings_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="STAGE.FILTER.BOUND=NUMBER"):
        parse_settings([text])


def test_the_difference_of_policies(tmp_path: Path) -> None:
    demo = load_policy("demo")
    assert changes(demo, demo) == []
    assert changes(demo, demo.replace("S4.compression.min", 80)) == [
        {"line": "S4.compression.min", "before": 70, "after": 80}
    ]
    zero = demo.replace("S4.compression.min", 0)  # a threshold of 0 is one
    assert changes(zero, demo) == [{"line": "S4.compression.min", "before": 0, "after": 70}]
    assert [r["line"] for r in changes(demo, zero)] == ["S4.compression.min"]
    path = tmp_path / "mine.toml"
    size = '[S1.filters.size]\nscore = "header.short_edge"\nmin = 9\n'
    path.write_text(f'[S1]\nresolutions = [64]\nenters = ["t2i"]\n{size}')
    differences = {r["line"]: (r["before"], r["after"]) for r in changes(demo, load_policy(path))}
    assert differences["S1.size.min"] == (None, 9) and differences["S6.balance.cap"] == (100_000, None)
    assert differences["S1.order"][1] == ["size"]
    assert [(r["stage"], r["filter"], r["reads"], r["min"]) for r in lines(load_policy(path))] == [
        ("S1", "size", "header.short_edge", 9)
    ]
