"""Pages of cases, and images."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from curation.sources.ingest import ingest
from flywheel.catalog.database import query
from flywheel.core.files import write_bytes
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.curation.corpus import write_folder
from tests.dashboards.visits import Page, opened
from tests.dashboards.workspace import picture


def test_pages_of_cases_cover_all_once(workspace: Workspace) -> None:
    client = opened(workspace, page_size=10)
    total = query(workspace, "SELECT count(*) AS n FROM cases")[0]["n"]
    shown: list[str] = []
    path = "/cases"
    while path:
        page = Page(client.get(path).text)
        links = [a["href"] for t, a in page.elements if t == "a"]
        shown += [h for h in links if h.startswith("/cases/")]
        path = next((a["href"] for t, a in page.elements if a.get("rel") == "next"), "")
    assert len(shown) == len(set(shown)) == total


def test_pictures_are_served_as_they_are(client: TestClient, workspace: Workspace) -> None:
    name = "samples/round-0001-candidate/count-000.png"
    answer = client.get(f"/files/{name}")
    assert answer.content == workspace.path(name).read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_workspace_on_s3_is_shown_with_its_pictures(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    workspace = Workspace(f"{s3}/w")
    write_bytes(workspace.path("samples", "round-0001-candidate", "p.png"), picture(1, True))
    event = {"event_id": "e", "case_id": "c" * 16, "round": 1, "kind": "detected", "capability": "count"}
    Ledger(workspace, "case_events").append([event | {"prompt_id": "p", "prompt": "two", "evidence": "{}"}], key="e")
    visitor = opened(workspace)
    page = Page(visitor.get("/cases").text)
    (address,) = (a["src"] for t, a in page.elements if t == "img")
    assert visitor.get(address).content == picture(1, True)
    assert visitor.get("/").status_code == 200
    ingest(workspace, write_folder(tmp_path / "source", {"p.png": picture(1, True)}, {"p.png": "two"}))
    (sample,) = query(workspace, "select sample_id from samples")
    shown = Page(visitor.get(f"/samples/{sample['sample_id']}").text)
    (address,) = (str(a["src"]) for t, a in shown.elements if t == "img")
    assert visitor.get(address).headers["content-type"].startswith("image/"), "pictures of the pool too"
