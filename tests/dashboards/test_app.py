"""The dashboard over HTTP, in process."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from dashboards.app import PAGE, serve
from dashboards.training import POINTS
from flywheel.catalog.database import query
from flywheel.core.errors import UsageError
from flywheel.core.files import write_bytes
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.dashboards.conftest import HOSTILE, opened, picture
from tests.dashboards.test_report import Page


@pytest.fixture(scope="module")
def client(workspace: Workspace) -> TestClient:
    return opened(workspace)


def some_case(workspace: Workspace, where: str) -> dict:
    return query(workspace, f"SELECT * FROM cases WHERE {where} ORDER BY case_id LIMIT 1")[0]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/cases",
        "/rounds/1",
        "/rounds/2",
        "/funnel",
        "/cases?capability=count&page=1",
        "/sql?ready=open_cases",
        "/what-if",
        "/why?id=checkpoints/none",
        "/sql?q=drop",
    ],
)
def test_pages_answer_and_load_only_from_here(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    page = Page(answer.text)
    assert page.open == []
    assert not [t for t, _ in page.elements if t == "iframe"]
    assert all(a.get("src", "").startswith("/static/") for t, a in page.elements if t == "script")
    sources = [a[k] for t, a in page.elements for k in ("src", "href") if k in a and t in {"img", "link"}]
    assert all(s.startswith(("/files/", "/static/", "data:")) for s in sources)
    assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
    assert not [a for _, attributes in page.elements for a in attributes if a == "style" or a.startswith("on")]


EMPTY = ["/", "/cases", "/funnel", "/sql?ready=failure_rate", "/what-if", "/why", "/training", "/review", "/arena"]


@pytest.mark.parametrize("path", EMPTY)
def test_an_empty_workspace_can_be_looked_at(empty: Workspace, path: str) -> None:
    assert opened(empty).get(path).status_code == 200


def test_every_link_and_picture_of_the_overview_and_a_round_answers(client: TestClient) -> None:
    found: set[str] = set()
    for start in ("/", "/rounds/2", "/cases?status=closed"):
        page = Page(client.get(start).text)
        here = {a[k] for t, a in page.elements for k in ("src", "href") if k in a and a[k].startswith("/")}
        assert here
        found |= here
    found -= set(sorted(x for x in found if x.startswith("/cases/"))[4:])  # one case's page is like another's
    assert {x: code for x in found if (code := client.get(x).status_code) != 200} == {}


@pytest.mark.parametrize(
    ("asked", "condition"),
    [
        ("capability=typography", "capability = 'typography'"),
        ("track=human", "track = 'human'"),
        ("status=closed", "status = 'closed'"),
        ("status=re-opened&track=pretraining", "status = 're-opened' AND track = 'pretraining'"),
        ("round=2", "round = 2"),
        (
            "checkpoint=checkpoints/round-0002-candidate&capability=count",
            "capability = 'count' AND prompt_id IN (SELECT prompt_id FROM signals WHERE NOT passed"
            " AND checkpoint = 'checkpoints/round-0002-candidate')",
        ),
        ("capability=' OR true --", "false"),
    ],
)
def test_filters_choose_their_cases(client: TestClient, workspace: Workspace, asked: str, condition: str) -> None:
    wanted = {r["case_id"] for r in query(workspace, f"SELECT case_id FROM cases WHERE {condition}")}
    page = Page(client.get(f"/cases?{asked}").text)
    links = [a["href"] for t, a in page.elements if t == "a"]
    shown = {h.removeprefix("/cases/") for h in links if h.startswith("/cases/")}
    assert len(wanted) <= PAGE
    assert shown == wanted
    assert f"{len(wanted)} case" in page.text


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


def test_case_page_shows_its_life_and_every_test(client: TestClient, workspace: Workspace) -> None:
    case = some_case(workspace, "status = 'closed' AND capability = 'typography'")
    text = Page(client.get(f"/cases/{case['case_id']}").text).text
    for word in ("detected", "routed", "passed", "round 1, candidate", "round 2, candidate", "round 2, control"):
        assert word in text


def test_case_page_shows_probes_with_pictures_reviews_and_remedy(client: TestClient, workspace: Workspace) -> None:
    case = some_case(workspace, "prompt_id = 'typography-001'")
    page = Page(client.get(f"/cases/{case['case_id']}").text)
    assert "1 of 2 further seeds pass" in page.text
    shown = [a["src"] for t, a in page.elements if t == "img" and "/probes/" in a["src"]]
    assert shown == [f"/files/probes/round-0001/seed-{k}/typography-001.png" for k in (1, 2)]
    assert "claimed ada" in page.text and "rejected ada wrong word" in page.text
    assert re.search(r"round 2 retrieved 20 \d+ ", page.text)


def test_a_card_shows_the_text_that_is_wrong_and_the_cases_history(client: TestClient) -> None:
    html = client.get("/cases?capability=typography&status=re-opened").text
    assert '<bdi>OP<mark class="lost">EN</mark></bdi>' in html
    history = re.findall(r'<ol class="history".*?</ol>', html, re.S)
    assert history and all(re.search(r"detected.*r1.*routed.*r1.*failed.*r2", h, re.S) for h in history)


def test_a_case_that_a_user_found_shows_what_the_user_said(empty: Workspace) -> None:
    told = {
        "verifier": "user",
        "score": 0.0,
        "threshold": 0.5,
        "evidence": json.dumps({"expected": "CAT", "seen": "CAR"}),
    }
    event = {"event_id": "e", "case_id": "c" * 16, "round": 0, "kind": "detected", "capability": "typography"}
    event |= {"prompt_id": "user-1", "prompt": "a sign", "evidence": json.dumps({"signals": [told]})}
    Ledger(empty, "case_events").append([event], key="e")
    assert '<bdi>CA<mark class="lost">T</mark></bdi>' in opened(empty).get("/cases").text


def test_a_checkpoints_own_output_is_shown_when_it_is_asked_for(client: TestClient) -> None:
    html = client.get("/cases?checkpoint=checkpoints/round-0002-candidate").text
    assert "/files/samples/round-0002-candidate/" in html and "/files/samples/round-0001-candidate/" not in html


def test_any_metric_of_any_run_can_be_compared(client: TestClient) -> None:
    page = Page(client.get("/training").text)
    (chart,) = (json.loads(a["data-chart"]) for _, a in page.elements if "data-chart" in a)
    names = ["round-0002-control", "round-0002-candidate", "round-0001-candidate"]
    assert [line["name"] for line in chart["lines"]] == names
    assert all(len(line["points"]) <= POINTS for line in chart["lines"])
    assert "/files/samples/round-0001-candidate/grid.png" in [a.get("src") for _, a in page.elements]
    one = client.get("/training?metric=validation_loss&run=round-0001-candidate&run=no-such").text
    (chart,) = (json.loads(a["data-chart"]) for _, a in Page(one).elements if "data-chart" in a)
    assert [x for x, _ in chart["lines"][0]["points"]] == [100.0 * n for n in range(1, 11)]
    assert "None of these runs records reward" in Page(client.get("/training?metric=reward").text).text


def test_hostile_prompt_is_text(client: TestClient, workspace: Workspace) -> None:
    case = some_case(workspace, "prompt LIKE '<script>%'")
    page = Page(client.get(f"/cases/{case['case_id']}").text)
    assert HOSTILE in page.text
    assert all(a.get("src", "").startswith("/static/") for t, a in page.elements if t == "script")


@pytest.mark.parametrize(
    "path",
    [
        "/rounds/9",
        "/rounds/x",
        "/cases/none",
        "/cases?page=x",
        "/cases?round=-1",
        "/files/workspace.json",
        "/files/ledger/rounds/_delta_log/00000000000000000000.json",
        "/files/%2e%2e/%2e%2e/etc/hostname",
        "/files/%00.png",
        "/static/../app.py",
        "/nowhere",
        "/docs",
    ],
)
def test_what_is_not_there_is_a_plain_404(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "Nothing here" in Page(answer.text).text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
def test_nothing_can_be_written(client: TestClient, method: str) -> None:
    assert getattr(client, method)("/cases").status_code == 405


def test_pictures_are_served_as_they_are(client: TestClient, workspace: Workspace) -> None:
    name = "samples/round-0001-candidate/count-000.png"
    answer = client.get(f"/files/{name}")
    assert answer.content == workspace.path(name).read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_serve_says_where_it_is_and_answers_there(workspace: Workspace) -> None:
    code = "import sys; from dashboards.app import *; serve(Workspace(sys.argv[1]), port=0)"
    command = [sys.executable, "-c", code, str(workspace.root)]
    server = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)
    try:
        line = server.stderr.readline()
        assert line.startswith("dashboard at http://127.0.0.1:")
        assert httpx.get(line.split()[2], timeout=30).status_code == 200
    finally:
        server.terminate()
        server.wait(timeout=60)
        server.stderr.close()


def test_a_busy_port_is_the_users_to_change(workspace: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port} .*: choose another --host or --port"):
            serve(workspace, port=port)


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
