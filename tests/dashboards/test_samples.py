"""The data browser: pages of samples, their pictures, and one sample as `flywheel explain` tells it."""

from __future__ import annotations

import io
import json
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from curation.sources.ingest import ingest
from dashboards.samples import SampleFilter, facets, list_samples
from flywheel.catalog.database import connect, query
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, write_folder
from tests.dashboards.visits import Page, opened
from tests.dashboards.workspace import HOSTILE


@pytest.fixture(scope="module")
def con(workspace: Workspace):
    with closing(connect(workspace, ("decisions", "samples", "tags"))) as opened:
        yield opened


def test_pages_cover_every_matching_sample_once(con):
    total, first = list_samples(con, SampleFilter(), limit=200, offset=0)
    _, rest = list_samples(con, SampleFilter(), limit=200, offset=200)
    assert total == 300 and len({r["sample_id"] for r in first + rest}) == 300
    assert first[0]["caption"] == HOSTILE and first[5]["caption"] == "card 5"
    assert list_samples(con, SampleFilter(outcome="admitted"), limit=1, offset=0)[0] == 225
    assert list_samples(con, SampleFilter(stage="S1", filter="entropy"), limit=1, offset=0)[0] == 15
    assert list_samples(con, SampleFilter(text="CARDS/0007"), limit=9, offset=0)[1][0]["source_uri"] == "cards/0007.png"
    assert list_samples(con, SampleFilter(text="Card 299"), limit=9, offset=0)[0] == 1
    assert list_samples(con, SampleFilter(text="100%_"), limit=9, offset=0) == (0, [])
    counts = {r["value"]: r["n"] for r in facets(con)["filter"]}
    assert counts == {"entropy": 15, "exact_duplicate": 20, "resolution": 40}


def test_dropped_samples_come_from_the_nearest_to_the_threshold(con):
    _, page = list_samples(con, SampleFilter(filter="resolution"), limit=40, offset=0)
    gaps = [abs(r["score"] - r["threshold"]) for r in page]
    assert gaps == sorted(gaps) and len(page) == 40


def test_the_pages_show_pictures_and_lead_to_one_sample(curated: Workspace):
    visitor = opened(curated)
    page = Page(visitor.get("/samples?outcome=admitted").text)
    images = [a["src"] for t, a in page.elements if t == "img"]
    assert images and all(a.get("alt") for t, a in page.elements if t == "img")
    shown = visitor.get(images[0])
    assert shown.headers["content-type"].startswith("image/") and "max-age" in shown.headers["cache-control"]
    assert max(Image.open(io.BytesIO(shown.content)).size) <= 192
    link = next(a["href"] for t, a in page.elements if t == "a" and (a.get("href") or "").startswith("/samples/"))
    sample = Page(visitor.get(link).text)
    assert "Admitted" in sample.text and "a picture of" in sample.text and "pixels.entropy" in sample.text


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two pictures and an edit of one of them, taken in and not decided yet."""
    folder = tmp_path_factory.mktemp("edited")
    write_folder(folder / "src", {f"{n}.png": encoded(texture(n, 64, 64)) for n in range(3)}, {})
    lines = [{"file": "0.png", "caption": "make it rougher", "references": ["1.png"]},
             {"file": "1.png", "caption": "a texture"}, {"file": "2.png", "caption": "<b>bold</b>"}]  # fmt: skip
    (folder / "src" / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    workspace = Workspace(folder / "w")
    ingest(workspace, folder / "src")
    return workspace


def test_an_edit_has_its_reference_and_what_is_not_decided_yet_has_a_page(edited: Workspace):
    visitor = opened(edited)
    by_name = {r["source_uri"][-5:]: r["sample_id"] for r in query(edited, "select * from samples")}
    page = visitor.get(f"/samples/{by_name['0.png']}")
    told = visitor.get(f"/api/samples/{by_name['0.png']}").json()["sample"]
    assert page.status_code == 200 and told["outcome"] == "not decided yet" and "after the edit" in page.text
    ((shard, row),) = told["references"]
    assert (told["masked"], told["license"]) == (False, None) and "not stated" in page.text
    shown, *drawn = (
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)
        for data in (
            visitor.get(f"/pictures/{shard}/{row}?side=96").content,
            *(encoded(texture(n, 64, 64)) for n in range(3)),
        )
    )
    assert [n for n, picture in enumerate(drawn) if np.abs(shown - picture).mean() < 10] == [1]
    assert visitor.get(f"/pictures/{shard}/{row}?mask=1").status_code == 404
    alone = visitor.get(f"/samples/{by_name['2.png']}").text
    assert "after the edit" not in alone and "&lt;b&gt;bold" in alone and "flywheel erase" in alone


@pytest.mark.parametrize(
    "path",
    ["/samples/none", "/pictures/batch-00000/999", "/pictures/none-00000/1", "/pictures/batch-00000/1?side=193",
     "/pictures/batch-00000/x", "/pictures/..%2F..-x/0", "/samples?page=x"],
)  # fmt: skip
def test_what_is_not_there_is_not_found(workspace: Workspace, path: str):
    assert opened(workspace).get(path).status_code == 404


def test_hostile_captions_are_text(workspace: Workspace):
    page = opened(workspace).get("/samples").text
    assert "<script>alert" not in page and "&lt;script&gt;" in page
    assert opened(workspace).get("/samples?text=%3Cscript%3E").text.count("<article") == 1


def test_an_empty_workspace_says_what_to_do(empty: Workspace):
    page = opened(empty).get("/samples")
    assert page.status_code == 200 and "flywheel curate" in page.text


def test_samples_are_listed_by_a_score_within_its_range(curated: Workspace):
    visitor = opened(curated)
    path = "/api/samples?score=header.short_edge"
    assert [s["listed_score"] for s in visitor.get(path).json()["samples"]] == [80.0] + [128.0] * 5
    low = visitor.get(f"{path}&most=100").json()
    assert (low["paging"]["total"], low["most"], low["least"]) == (1, 100.0, None)
    assert visitor.get(f"{path}&least=100&most=100").json()["samples"] == []
    assert visitor.get(f"{path}&least=100&of=pixels.entropy").json()["paging"]["total"] == 6, "of another score"
    assert visitor.get(f"{path}&outcome=dropped").json()["samples"] == []
    page = Page(visitor.get("/samples?score=header.short_edge&least=100").text)
    assert page.open == [] and "5 samples" in page.text and "S1.resolution.min 64" in page.text
    ranges = {a["name"]: a["value"] for t, a in page.elements if t == "input" and a.get("type") == "range"}
    assert ranges == {"least": "100.0", "most": "128.0"}


@pytest.mark.parametrize("asked", ["score=none", "score=header.format", "score=header.short_edge&least=x",
                                   "score=header.short_edge&most=nan", 'score="; drop'])  # fmt: skip
def test_what_is_no_score_or_no_number_is_not_found(curated: Workspace, asked: str):
    assert opened(curated).get(f"/samples?{asked}").status_code == 404
