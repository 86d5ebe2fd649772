"""The data of whole pages."""

from contextlib import closing

from dashboards.rounds import load_rounds
from dashboards.views import Data, data, overview, round_view
from flywheel.catalog.database import connect
from flywheel.core.workspace import Workspace
from tests.dashboards.workspace import PROMPTS, RATES, TARGETS


def test_the_overview_sums_up_the_loop(workspace: Workspace) -> None:
    with closing(connect(workspace)) as con:
        seen = overview(workspace, con)
    assert (seen.workspace, seen.root) == ("demo-workspace", str(workspace.root))
    assert [r.number for r in seen.rounds] == [1, 2] and seen.steps == 1500
    assert seen.prompts == PROMPTS * len(RATES)
    assert seen.remedies == sum(i % 9 != 8 for i in range(120)) * len(TARGETS)
    assert {t["track"] for t in seen.tracks} == {"pretraining", "rl", "prompt_enhancement", "human"}


def test_a_round_has_its_own_cases_remedies_curves_and_grids(workspace: Workspace) -> None:
    with closing(connect(workspace)) as con:
        first, second = (round_view(workspace, con, r, cards=3) for r in load_rounds(workspace, con))
    assert first.fixed == first.broken == first.remedies == []
    assert (len(second.fixed), len(second.broken)) == (3, 2)  # of 24 and 2
    assert {r["capability"] for r in second.remedies} == set(TARGETS)
    assert [len(v.grids) for v in (first, second)] == [1, 2] and len(second.curves) > len(first.curves) > 0


def test_data_is_empty_before_the_first_curation(empty: Workspace, workspace: Workspace) -> None:
    with closing(connect(empty)) as con:
        assert data(empty, con) == Data(None, [], [], [], [], [])
        assert overview(empty, con).prompts == 0
    with closing(connect(workspace)) as con:
        seen = data(workspace, con)
    assert len(seen.funnel) == 4 and seen.off and len(seen.drops) == len(seen.quarantine) == 3
