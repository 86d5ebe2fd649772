"""The page of the map, its picture, and the way to the data browser."""

from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from flywheel.catalog.database import connect
from flywheel.core.files import write_parquet
from flywheel.core.lens import latest_snapshot
from flywheel.core.workspace import Workspace
from flywheel.remedies.pool_map import keep, placed
from tests.dashboards.visits import Page, opened
from tests.dashboards.workspace import PROBED, build, place_on_map


@pytest.fixture(scope="module")
def visitor(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    workspace = build(tmp_path_factory.mktemp("map") / "w")
    place_on_map(workspace)
    return opened(workspace)


def test_a_part_of_the_map_has_its_picture_its_counts_and_its_samples(visitor: TestClient) -> None:
    page = Page(visitor.get("/map?colour=stage").text)
    assert page.open == [] and "299 samples on the whole map" in page.text
    assert "1 of 300 rows are not on the map" in page.text
    (shown,) = (a["src"] for t, a in page.elements if str(a.get("src")).startswith("/map.png"))
    drawn = visitor.get(shown)
    assert drawn.headers["content-type"] == "image/png" and len(drawn.content) < 100_000
    part = visitor.get("/api/map?colour=track&x0=-1.05&x1=-0.55&y0=-1.05&y1=-0.85").json()
    assert (part["inside"], part["whole"], part["cases_inside"]) == (10, False, 1)
    assert {r["source_uri"] for r in part["samples"]} == {f"cards/{i:04d}.png" for i in (*range(5), *range(20, 25))}
    within = "-1.05,-0.55,-1.05,-0.85"
    assert visitor.get("/api/samples", params={"within": within}).json()["paging"]["total"] == 10
    assert visitor.get("/samples", params={"within": within}).text.count("<article") == 10
    there = visitor.get("/api/map?colour=track&x0=0.8&x1=1&y0=0.2&y1=0.35").json()
    assert [c["track"] for c in there["cases"]] == ["human"] and there["cases"][0]["case_id"] != PROBED
    assert "human" in Page(visitor.get("/map?colour=track&x0=0.8&x1=1&y0=0.2&y1=0.35").text).text


def test_what_the_map_keeps_of_a_snapshot_is_what_the_page_would_join(tmp_path: Path) -> None:
    workspace = build(tmp_path / "w")
    place_on_map(workspace)
    snapshot = latest_snapshot(workspace)
    assert snapshot is not None
    asked = [f"/api/map?colour={colour}" for colour in ("stage", "outcome", "track", "pixels.entropy")]
    joined = [opened(workspace).get(address).json() for address in asked]
    with closing(connect(workspace, ["map_points", "decisions"])) as con:
        keep(workspace, con, snapshot)
    path = placed(workspace, snapshot)
    assert path is not None and pq.read_metadata(path).num_rows == 299
    assert [opened(workspace).get(address).json() for address in asked] == joined
    write_parquet(path, pq.read_table(path).slice(0, 7))  # it is read
    assert opened(workspace).get(asked[0]).json()["inside"] == 7
    assert placed(workspace, "another") != path


def test_a_lasso_leads_to_its_samples_and_to_its_open_cases(visitor: TestClient) -> None:
    chosen = {"colour": "track", "within": "-1.05,-1.05 -0.55,-1.05 -0.55,-0.85 -1.05,-0.85"}
    api = visitor.get("/api/map", params=chosen).json()
    assert (api["inside"], api["cases_inside"], api["whole"]) == (10, 1, True) and len(api["lasso"]["corners"]) == 4
    page = Page(visitor.get("/map", params=chosen).text)
    assert page.open == [] and "10 samples and 1 open case in your selection" in page.text
    links = {str(a["href"]) for t, a in page.elements if t == "a" and "within" in str(a.get("href"))}
    (samples,), (cases,) = ([a for a in links if a.startswith(f"/{kind}?")] for kind in ("samples", "cases"))
    assert visitor.get(f"/api{samples}").json()["paging"]["total"] == 10
    listed = visitor.get(f"/api{cases}").json()
    assert [c["prompt"] for c in listed["cases"]] == [c["prompt"] for c in api["cases"]]
    assert "chosen on the map" in visitor.get(cases).text
    (outline,) = (a["points"] for t, a in page.elements if t == "polygon")
    assert outline and len(outline.split()) == 4
    assert any(a.startswith("/map?") and "x0=" in a for a in links), "moving keeps the selection"


@pytest.mark.parametrize(
    "asked", ["colour=none", "x0=0", "x0=1&x1=0&y0=0&y1=1", "x0=nan&x1=1&y0=0&y1=1", "x0=-1e9&x1=1&y0=0&y1=1"]
)
def test_what_is_no_part_of_the_map_is_not_found(visitor: TestClient, asked: str) -> None:
    for path in ("/map", "/map.png"):
        assert visitor.get(f"{path}?{asked}").status_code == 404
    for within in ("1", "1,2,3", "a,b,c,d", "nan,1,2,3", "0,0 1,1", "0,0 1,1 2,x"):
        for path in ("/samples", "/cases", "/map"):
            assert visitor.get(path, params={"within": within}).status_code == 404
    assert visitor.get("/map", params={"within": "0,1,0,1"}).status_code == 404, "a rectangle has fields of its own"


def test_without_a_map_the_page_says_how_to_make_one(empty: Workspace, tmp_path: Path) -> None:
    page = opened(empty).get("/map")
    assert page.status_code == 200 and "flywheel map -w" in page.text
    assert opened(empty).get("/map.png").status_code == 200
