"""The view `scores` has all that was scored, whichever policy came last."""

from __future__ import annotations

from pathlib import Path

from curation.policy.policy import Policy
from curation.run import curate, funnel
from curation.sources.ingest import ingest
from flywheel.catalog.database import query
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.curation import one_stage
from tests.curation.corpus import encoded, texture, write_folder

ENTROPY = '[S1.filters.entropy]\nscore = "pixels.entropy"\nmin = 1\n'
COUNTED = 'select count(*) as rows, count("pixels.entropy") as pixels, count("category.name") as named from scores'


def by_category(root: Path, name: str) -> Policy:
    """A policy that calls every picture of a cat by this name."""
    taxonomy = root / f"{name}-taxonomy.toml"
    taxonomy.write_text(f'[{name}]\nkeywords = ["cat"]\n')
    balance = '[S1.filters.balance]\ncheck = "balance"\nper = "category.name"\ncap = 9\n'
    return one_stage.policy(root, f'{balance}[scorers.category]\ntaxonomy = "{taxonomy}"\n')


def curated(workspace: Workspace, policy: Policy) -> None:
    snapshot = curate(one_stage.scored(workspace, policy), policy).snapshot
    row = {"snapshot": snapshot, "policy": "mine", "manifest": f"shards/{snapshot}.json"}
    counts = dict.fromkeys(("input", "admitted", "dropped", "quarantined"), 0)
    key = f"{snapshot}/{len(Ledger(workspace, 'snapshots').rows())}"
    Ledger(workspace, "snapshots").append([row | counts], key=key)


def names(workspace: Workspace) -> list[str]:
    return [r["name"] for r in query(workspace, 'select distinct "category.name" as name from scores order by 1')]


def test_all_that_was_scored_is_there_as_the_latest_snapshot_has_it(tmp_path: Path) -> None:
    workspace, source = Workspace(tmp_path / "w"), tmp_path / "src"
    files = {f"{n}.png": encoded(texture(n, 70, 70)) for n in range(3)}
    ingest(workspace, write_folder(source, files, dict.fromkeys(files, "a cat")))
    one, other, few = (*(by_category(tmp_path, n) for n in ("one", "other")), one_stage.policy(tmp_path, ENTROPY))
    for policy, expected in ((one, ["one"]), (other, ["other"]), (one, ["one"])):  # led back
        curated(workspace, policy)
        assert names(workspace) == expected
    funnel(one_stage.scored(workspace, few), few)  # only asked
    assert query(workspace, COUNTED) == [{"rows": 3, "pixels": 3, "named": 3}]
    later = {"9.png": encoded(texture(9, 70, 70))}
    ingest(workspace, write_folder(source, later, dict.fromkeys((*files, *later), "a cat")))
    curated(workspace, few)
    assert query(workspace, COUNTED) == [{"rows": 4, "pixels": 4, "named": 3}]
    curated(workspace, one)
    assert query(workspace, COUNTED) == [{"rows": 4, "pixels": 4, "named": 4}] and names(workspace) == ["one"]


def test_tables_that_were_removed_are_there_again_after_the_next_run(tmp_path: Path) -> None:
    workspace, policy = Workspace(tmp_path / "w"), one_stage.policy(tmp_path, ENTROPY)
    ingest(workspace, write_folder(tmp_path / "src", {"a.png": encoded(texture(1, 70, 70))}))
    curated(workspace, policy)
    for table in workspace.path("tables").glob("*.parquet"):
        table.unlink()
    assert query(workspace, COUNTED)[0]["rows"] == 0
    curated(workspace, policy)
    assert query(workspace, COUNTED)[0]["rows"] == 1
