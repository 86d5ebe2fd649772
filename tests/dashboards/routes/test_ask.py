"""Pages that answer questions: SQL, what if, why. And what a browser makes of them."""

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.browser import served
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import opened


def test_a_question_in_sql(workspace: Workspace) -> None:
    client = opened(workspace)
    answer = client.get("/sql", params={"q": "select 'say <b>' || 40 + 2 as said"}).text
    assert "say &lt;b&gt;42" in answer and "1 row" in answer
    for wrong in ("drop table x", "select * from read_text('/etc/hostname')", "select 1; select 2"):
        page = client.get("/sql", params={"q": wrong})
        assert page.status_code == 200 and 'role="alert"' in page.text and "<tbody>" not in page.text
    many = client.get("/sql", params={"q": "select * from range(2000)"}).text
    assert "1,000 rows; there are more" in many


def test_another_site_cannot_ask(workspace: Workspace) -> None:
    """Without a token, any page that a visitor opens elsewhere could make this machine work."""
    client = opened(workspace)
    link = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for site in ("cross-site", "same-site"):
        for path in (
            "/sql?q=select+1",
            "/what-if",
            "/why?id=x",
            "/api/sql?q=select+1",
            "/api/what-if",
            "/api/why?id=x",
        ):
            for more in ({}, link):
                assert client.get(path, headers={"Sec-Fetch-Site": site} | more).status_code == 403
        assert client.get("/cases", headers={"Sec-Fetch-Site": site}).status_code == 403
        assert client.get("/cases", headers={"Sec-Fetch-Site": site} | link).status_code == 200
        assert client.get("/cases", headers={"Sec-Fetch-Site": site} | link | {"Sec-Fetch-Dest": "iframe"}).is_error
    for own in ("same-origin", "none"):
        assert client.get("/sql?q=select+1", headers={"Sec-Fetch-Site": own}).status_code == 200


def test_what_another_threshold_would_admit(curated: Workspace) -> None:
    client = opened(curated)
    page = client.get("/what-if").text
    assert "6 → 6" in page and 'name="S1.resolution.min"' in page
    asked = client.get("/what-if", params={"S1.resolution.min": "100"}).text
    assert "6 → 5" in asked and "S1.resolution.min" in asked and "1 leave" in asked
    for wrong in ({"S1.resolution.min": "much"}, {"S9.none.min": "1"}):
        assert 'role="alert"' in client.get("/what-if", params=wrong).text


def test_why_a_sample_is_there(curated: Workspace) -> None:
    client = opened(curated)
    page = client.get("/why", params={"id": "0.png"}).text
    assert "admitted" in page and "header.short_edge" in page.replace(" ", "_")
    assert 'role="alert"' in client.get("/why", params={"id": "no such thing"}).text


@pytest.fixture(scope="module")
def address(curated: Workspace) -> Iterator[str]:
    with served(curated) as url:
        yield url


def test_a_slider_answers_in_place(browser: Any, address: str) -> None:
    page = browser.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/what-if")
    slider = page.locator('input[name="S1.resolution.min"]')
    slider.evaluate("e => { e.value = 100; e.dispatchEvent(new Event('input', { bubbles: true })); }")
    page.wait_for_url("**/what-if?S1.resolution.min=100")
    page.get_by_text("6 → 5").wait_for()
    page.goto(f"{address}/")
    assert messages == [], "no script may fail, nor the content-security policy refuse anything"
    assert all(url.startswith((address, "data:")) for url in asked)
