"""A workspace in a notebook: lazy tables with pictures, and what can be asked of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import flywheel as fw
from dashboards.notebook import Opened, open_workspace
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.dashboards.workspace import HOSTILE


@pytest.fixture(scope="module")
def w(workspace: Workspace) -> Opened:
    return open_workspace(workspace.root)


def test_a_table_has_the_rows_asked_for_in_every_form(w: Opened):
    cases = w.cases(capability="typography")
    assert len(cases) == len(cases.rows()) == cases.arrow().num_rows == len(cases.df()) > 0
    assert set(cases.df()["capability"]) == {"typography"}
    both = w.cases(capability=["typography", "count"])
    assert len(both) == len(cases) + len(w.cases(capability="count"))
    assert len(w.cases(fixed_in=None)) + len(w.cases().sql("SELECT * FROM it WHERE fixed_in IS NOT NULL")) == len(
        w.cases()
    )
    assert len(w.cases(capability="it's")) == len(w.cases(capability=[])) == 0
    joined = cases.sql("SELECT count(*) AS n FROM it JOIN case_events USING (case_id)").rows()
    assert joined[0]["n"] >= len(cases)
    assert {r["round"] for r in w.rounds().rows()} == {1, 2}


def test_samples_are_tagged_and_found_by_their_tags(workspace: Workspace, tmp_path: Path):
    copy = open_workspace(shutil.copytree(workspace.root, tmp_path / "w"))
    few = copy.decisions(filter="entropy")
    assert copy.tag("to look at", few, by="ada") == 15 == len(copy.samples(tag="to look at"))
    assert len(copy.samples(tag=["to look at", "no such"])) == 15 and len(copy.samples(tag=None)) == 285
    assert copy.tag("to look at", [few.rows()[0]["sample_id"]], by="ada", remove=True) == 1
    assert len(copy.decisions(tag="to look at", outcome="dropped")) == len(copy.table("tags", tag="to look at")) == 14
    with pytest.raises(UsageError, match="no column 'tag'"):
        copy.rounds(tag="x")


def test_shown_rows_have_thumbnails_and_texts_that_no_browser_runs(w: Opened):
    page = w.cases()._repr_html_()
    assert page.count('<img src="data:image/') > 0 and "<script" not in page
    assert f"20 of {len(w.cases())} rows" in page
    hostile = w.sql(f"SELECT '{HOSTILE}' AS prompt")._repr_html_()
    assert "<img" not in hostile and "&lt;script&gt;" in hostile
    assert "<table>" in w.cases(capability="no such")._repr_html_()


def test_samples_show_their_pictures(curated: Workspace):
    w = open_workspace(curated.root)
    shown = w.samples().show(3)
    assert len(shown.rows) == 3 and all(t.startswith("data:image/") for t in shown.thumbnails)
    assert w.decisions().show().total == 6 and all(w.decisions().show().thumbnails)
    assert not any(w.funnel().show().thumbnails)


def test_questions_are_answered_as_the_command_answers_them(curated: Workspace):
    w = open_workspace(str(curated.root))
    (sample,) = w.samples().sql("SELECT sample_id FROM it ORDER BY width DESC LIMIT 1").rows()
    assert w.explain(sample["sample_id"][:12])["rows"][0]["outcome"] == "admitted"
    admitted = w.what_if()["admitted"]
    assert admitted["enters"] == admitted["leaves"] == 0


def test_mistakes_get_a_sentence(w: Opened, tmp_path):
    for wrong, message in (
        (lambda: w.table("case"), "there is no table 'case': choose one of samples"),
        (lambda: w.cases(capabilty="count"), "cases has no column 'capabilty': choose one of case_id"),
        (lambda: w.sql("SELECT nothing FROM cases").rows(), "nothing"),
        (lambda: fw.open(tmp_path / "none"), "no workspace at"),
    ):
        with pytest.raises(UsageError, match=message):
            wrong()
