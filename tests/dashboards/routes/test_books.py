"""The pages of costs, sources and coverage, as pages and as JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import Page, opened


def test_money_is_shown_at_stated_prices_only(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    row = {"cost_id": "c", "round": 1, "step": "train", "units": 5, "wall_seconds": 1800.0}
    Ledger(workspace, "costs").append([row | {"cpu_seconds": 3600.0, "gpu_seconds": 7200.0}], key="c")
    visitor = opened(workspace)
    plain, priced = (Page(visitor.get(path).text) for path in ("/cost", "/cost?core=0.5&gpu=3"))
    assert "money per" not in plain.text and "money 6.50" in priced.text
    answer = visitor.get("/api/cost?core=0.5&gpu=3").json()
    assert answer["prices"] == {"core": 0.5, "gpu": 3.0} and answer["costs"]["money"] == 6.5
    assert [s["step"] for s in answer["costs"]["steps"]] == ["train"]


@pytest.mark.parametrize("price", ["-1", "x", "nan", "inf", "1e99"])
def test_what_is_no_price_is_one_sentence(client: TestClient, price: str) -> None:
    answer = client.get(f"/api/cost?gpu={price}")
    assert answer.status_code == 422 and "is not a price" in answer.json()["error"]


def test_sources_and_coverage_are_shown(client: TestClient, curated: Workspace) -> None:
    page = Page(client.get("/sources").text)
    assert page.open == [] and "cards" in page.text and "12 inputs could not be read" in page.text
    visitor = opened(curated)
    page = Page(visitor.get("/coverage").text)
    assert page.open == [] and "Caption kinds" in page.text and "general" in page.text
    assert visitor.get("/api/coverage").json()["kinds"][0]["name"] == "general"
    assert visitor.get("/coverage?stage=S9").status_code == 422


@pytest.mark.parametrize("path", ["/cost", "/sources", "/coverage"])
def test_an_empty_workspace_says_what_to_do(empty: Workspace, path: str) -> None:
    answer = opened(empty).get(path)
    assert answer.status_code == 200 and "flywheel " in Page(answer.text).text
