"""The dashboard over HTTP, in process."""

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from dashboards.access import Access, Person
from dashboards.app import MAX_FORM, serve
from flywheel.catalog.database import query
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import Page, hidden, opened, some_case
from tests.dashboards.workspace import HOSTILE, PROBED


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/cases",
        "/rounds/1",
        "/rounds/2",
        "/funnel",
        "/samples",
        "/samples?outcome=dropped&filter=entropy",
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
    assert all(s.startswith(("/files/", "/pictures/", "/static/", "data:")) for s in sources)
    assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
    assert not [a for _, attributes in page.elements for a in attributes if a == "style" or a.startswith("on")]


JSON = ["/", "/cases?status=closed", f"/cases/{PROBED}", "/rounds/2", "/review?reviewer=ada", "/arena?judge=ada",
        "/funnel", "/samples?outcome=dropped", "/training", "/what-if", "/why?id=typography-8",
        "/sql?q=select+1+as+one", "/compare", "/calibration?verifier=count&reviewer=ada", "/cost?gpu=2",
        "/sources", "/coverage"]  # fmt: skip


@pytest.mark.parametrize("path", JSON)
def test_each_page_is_json_too(client: TestClient, path: str) -> None:
    answer = client.get(f"/api{path.removeprefix('/') and path}")
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert isinstance(answer.json(), dict) and "csrf" not in answer.json()
    for response in (answer, client.get(path)):
        spent = re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"])
        parts = {name: float(ms) for name, ms in spent}
        assert list(parts) == ["data", "page", "total"] and parts["total"] >= parts["data"] >= 0


def test_json_has_what_the_page_shows(client: TestClient, workspace: Workspace) -> None:
    assert [r["number"] for r in client.get("/api").json()["rounds"]] == [1, 2]
    listed = client.get("/api/cases?capability=typography&status=closed").json()
    known = {
        r["case_id"]
        for r in query(workspace, "SELECT * FROM cases WHERE capability = 'typography' AND status = 'closed'")
    }
    assert {c["case_id"] for c in listed["cases"]} == known and listed["paging"]["total"] == len(known)
    assert client.get("/api/sql?q=select+1+as+one").json()["answer"] == {
        "columns": ["one"],
        "rows": [[1]],
        "more": False,
    }
    pair = client.get("/api/arena?judge=ada").json()["pair"]
    assert pair.keys() == {"battle_id", "prompt_id", "prompt"}, "nothing tells which model drew which"


@pytest.mark.parametrize(
    ("path", "status"), [("/api/cases/none", 404), ("/api/nowhere", 404), ("/api/cases?page=x", 404)]
)
def test_what_is_wrong_is_json_too(client: TestClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status and answer.json()["error"]


def test_a_probe_needs_no_token_and_learns_whether_the_workspace_can_be_read(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    visitor = opened(workspace, Access({"a" * 16: Person("ada", "read")}))
    assert (visitor.get("/healthz").status_code, visitor.get("/healthz").json()) == (200, {"status": "ok"})
    assert visitor.get("/api/cases").status_code == 401 and "token" in visitor.get("/api/cases").json()["error"]
    assert visitor.get("/api/cases", headers={"Authorization": f"Bearer {'a' * 16}"}).json()["paging"]["total"] == 0
    workspace.path("workspace.json").rename(tmp_path / "aside")
    assert visitor.get("/healthz").status_code == 503 and str(tmp_path) not in visitor.get("/healthz").text


EMPTY = [
    "/compare",
    "/calibration",
    "/",
    "/cases",
    "/funnel",
    "/sql?ready=failure_rate",
    "/what-if",
    "/why",
    "/training",
    "/review",
    "/arena",
]


@pytest.mark.parametrize("path", EMPTY)
def test_an_empty_workspace_can_be_looked_at(empty: Workspace, path: str) -> None:
    assert opened(empty).get(path).status_code == 200


def test_every_link_and_picture_of_the_overview_and_a_round_answers(client: TestClient) -> None:
    addresses: set[str] = set()
    for start in ("/", "/rounds/2", "/cases?status=closed"):
        page = Page(client.get(start).text)
        here = {a[k] for t, a in page.elements for k in ("src", "href") if k in a and a[k].startswith("/")}
        assert here
        addresses |= here
    addresses -= set(sorted(x for x in addresses if x.startswith("/cases/"))[4:])  # one case's page is like another's
    assert {x: code for x in addresses if (code := client.get(x).status_code) != 200} == {}


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
    assert "Not found" in Page(answer.text).text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_an_address_without_its_parameters_is_a_sentence(client: TestClient) -> None:
    answer = client.get("/arena/pictures/b/left")
    assert answer.status_code == 422 and "one: Field required." in answer.text and "<html" in answer.text


def test_a_damaged_workspace_is_one_sentence_on_its_page(workspace: Workspace, tmp_path: Path) -> None:
    shutil.copytree(workspace.root, tmp_path / "copy")
    copy = Workspace(tmp_path / "copy")
    for record in copy.snapshots():
        copy.snapshot(record.stem, "decisions").write_bytes(b"PAR1")
    answer = opened(copy).get("/funnel")
    assert answer.status_code == 500 and "`flywheel fsck` names all such files" in answer.text


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
def test_nothing_can_be_written(client: TestClient, method: str) -> None:
    assert getattr(client, method)("/cases").status_code == 405


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
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port} .*: choose another --host or --port"):
            serve(workspace, port=port)


def test_another_site_cannot_lead_here_or_send_forms(workspace: Workspace) -> None:
    visitor = opened(workspace)
    assert visitor.get("/", headers={"Host": "elsewhere.example"}).status_code == 400
    token = hidden(visitor.get("/review?reviewer=ada").text, "csrf")
    sent = {"csrf": token, "reviewer": "ada"}
    assert visitor.post("/review/claim", data=sent, headers={"Origin": "http://elsewhere.example"}).status_code == 403
    assert visitor.post("/review/claim", data=sent, headers={"Origin": "http://[::1"}).status_code == 403
    assert visitor.post("/review/claim", data=sent | {"csrf": ""}).status_code == 403


def test_forms_are_bounded(workspace: Workspace) -> None:
    visitor = opened(workspace)
    assert visitor.post("/review/claim", data={"reviewer": "x" * MAX_FORM}).status_code == 413
    assert visitor.post("/review/claim", content=iter([b"a=b"])).status_code == 413  # no Content-Length
