"""Visitors of the dashboard, and pages read as a browser reads them."""

from html.parser import HTMLParser
from typing import Any

from starlette.testclient import TestClient

from dashboards.access import Access, Person
from dashboards.app import create_app
from flywheel.catalog.database import query
from flywheel.core.workspace import Workspace
from flywheel.remedies.review import Item, Queue, held_by

VOID = {"meta", "link", "img", "br", "input", "hr", "path", "rect", "line", "circle", "polyline"}


class Page(HTMLParser):
    """Elements with attributes, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.parts).split())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1] if self.open else 'nothing'}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.parts.append(data)


def opened(workspace: Workspace, access: Access | None = None, **options: Any) -> TestClient:
    """A visitor on the machine that serves the dashboard."""
    return TestClient(create_app(workspace, access, **options), base_url="http://127.0.0.1")


def hidden(html: str, name: str) -> str:
    """Value of a hidden field."""
    return next(a["value"] for t, a in Page(html).elements if t == "input" and a.get("name") == name)


REVIEWERS = {
    f"{name}-has-this-token": Person(name, role)
    for name, role in {**dict.fromkeys(("ada", "bob", "carl", "dora"), "review"), "eve": "read"}.items()
}


def signed_in(workspace: Workspace, name: str) -> TestClient:
    visitor = opened(workspace, Access(REVIEWERS))
    assert visitor.post("/login", data={"token": f"{name}-has-this-token"}).status_code == 200
    return visitor


def held(workspace: Workspace, reviewer: str) -> Item | None:
    return held_by(reviewer, Queue(workspace).items().values())


def send(visitor: TestClient, page: str, to: str, **fields: str):
    """Send the form of a page with its hidden fields."""
    html = visitor.get(page).text
    inputs = {
        a["name"]: a.get("value", "") for t, a in Page(html).elements if t == "input" and a.get("type") == "hidden"
    }
    return visitor.post(to, data=inputs | fields)


def some_case(workspace: Workspace, where: str) -> dict:
    return query(workspace, f"SELECT * FROM cases WHERE {where} ORDER BY case_id LIMIT 1")[0]
