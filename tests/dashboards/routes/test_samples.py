"""The data browser: tags of a selection, and the selection as a file."""

import csv
import io
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flywheel.catalog.database import query
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import Page, opened, send, signed_in

ENTROPY = "outcome=dropped&filter=entropy&page=1"


@pytest.fixture(scope="module")
def written(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the workspace to write to."""
    return Workspace(shutil.copytree(workspace.root, tmp_path_factory.mktemp("samples") / "w"))


def test_a_selection_and_single_samples_are_tagged_and_found(written: Workspace) -> None:
    ada = signed_in(written, "ada")
    answer = send(ada, "/samples", "/samples/tag", do="add all", tag="poor <b>", back=ENTROPY)
    assert "The tag poor <b> was added to 15 samples." in Page(answer.text).text and answer.text.count("<article") == 15
    listed = ada.get("/api/samples", params={"tag": "poor <b>"}).json()
    assert listed["paging"]["total"] == 15 and listed["facets"]["tag"] == [{"value": "poor <b>", "n": 15}]
    assert {s["filter"] for s in listed["samples"]} == {"entropy"} and listed["samples"][0]["tags"] == ["poor <b>"]
    ids = [s["sample_id"] for s in listed["samples"]]
    picked = {f"pick:{i}": "on" for i in ids[:2]}
    send(ada, "/samples", "/samples/tag", do="remove picked", tag="poor <b>", back=ENTROPY, **picked)
    rows = query(written, 'SELECT tag, count(*) AS n, any_value("by") AS who FROM tags GROUP BY 1')
    assert rows == [{"tag": "poor <b>", "n": 13, "who": "ada"}]


def test_one_sample_is_tagged_on_its_page(curated: Workspace, tmp_path: Path) -> None:
    ada = signed_in(Workspace(shutil.copytree(curated.root, tmp_path / "w")), "ada")
    page = f"/samples/{ada.get('/api/samples').json()['samples'][0]['sample_id']}"
    for do, tags in (("add", ["rare"]), ("remove", [])):
        answer = send(ada, page, "/samples/tag", do=f"{do} picked", tag="rare")
        assert str(answer.url).split("?")[0].endswith(page)
        assert ada.get(f"/api{page}").json()["tags"] == tags


def test_what_cannot_be_tagged_is_told_why(written: Workspace) -> None:
    eve, ada, nobody = signed_in(written, "eve"), signed_in(written, "ada"), opened(written)
    assert "/samples/tag" not in eve.get("/samples").text
    assert send(eve, "/samples", "/samples/tag", do="add all", tag="x").status_code == 403
    assert ada.post("/samples/tag", data={"do": "add all", "tag": "x"}).status_code == 403
    for said, fields in (
        ("no sample is picked", {"do": "add picked", "tag": "x"}),
        ("unknown change", {"do": "add some", "tag": "x"}),
        ("no sample of the pool", {"do": "add picked", "tag": "x", "pick:nothing": "on"}),
        ("name the tag", {"do": "add all", "tag": " "}),
    ):
        assert said in send(ada, "/samples", "/samples/tag", **fields).text
    assert "say who you are" in send(nobody, "/samples", "/samples/tag", do="add all", tag="x", reviewer="").text
    assert send(ada, "/samples", "/samples/tag", do="add all", tag="x", back="score=a&least=b").status_code == 404


def test_a_selection_is_a_file(written: Workspace) -> None:
    ada = signed_in(written, "ada")
    send(ada, "/samples", "/samples/tag", do="add all", tag="in a file", back=ENTROPY)
    answer = ada.get(f"/samples.csv?{ENTROPY}")
    assert answer.headers["content-disposition"] == 'attachment; filename="samples.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 15 and all("in a file" in r["tags"] and r["outcome"] == "dropped" for r in rows)
    assert rows[0]["caption"].startswith("card ") and rows[0]["width"] == "256"
    table = pq.read_table(io.BytesIO(ada.get("/samples.parquet").content))
    assert table.num_rows == 300 and table.column_names == list(rows[0])
    assert ada.get("/samples.csv?tag=none").text.count("\n") == 1
    assert ada.get("/samples.csv?score=no.such").status_code == 404
    there = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert ada.get("/samples.csv", headers=there).status_code == 403
