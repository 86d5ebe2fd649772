"""Signing in and out."""

import pytest

from dashboards.access import ROLES, Access, Person
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import Page, hidden, opened

TOKENS = {role: f"{role}-token-of-24-letters" for role in ROLES}


@pytest.fixture
def access() -> Access:
    return Access({TOKENS[role]: Person(f"{role}er", role) for role in ROLES})


def test_a_stranger_sees_nothing_and_is_sent_back_after_signing_in(workspace: Workspace, access: Access) -> None:
    visitor = opened(workspace, access)
    for path in ("/", "/cases", "/sql?q=select+1", "/files/samples/round-0001-candidate/count-000.png"):
        answer = visitor.get(path, follow_redirects=False)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/login?next=")
    page = visitor.get("/cases?status=closed")
    assert "Sign in" in page.text and str(workspace.root) not in page.text
    wrong = visitor.post("/login", data={"token": "wrong", "next": "/"})
    assert wrong.status_code == 403 and "This token is not valid" in wrong.text
    answer = visitor.post("/login", data={"token": TOKENS["read"], "next": hidden(page.text, "next")})
    assert answer.status_code == 200 and str(answer.url).endswith("/cases?status=closed")
    assert "reader (read)" in Page(answer.text).text
    cookie = next(iter(visitor.cookies.jar))
    assert cookie.has_nonstandard_attr("HttpOnly") and cookie.get_nonstandard_attr("SameSite") == "strict"
    assert TOKENS["read"] not in cookie.value


def test_signing_out_needs_our_form_and_ends_the_session(workspace: Workspace, access: Access) -> None:
    visitor = opened(workspace, access)
    page = visitor.post("/login", data={"token": TOKENS["read"]})
    assert visitor.post("/logout", data={"csrf": "0" * 64}).status_code == 403
    copy = dict(visitor.cookies.items())
    assert "Sign in" in visitor.post("/logout", data={"csrf": hidden(page.text, "csrf")}).text
    thief = opened(workspace, access)
    thief.cookies.update(copy)
    assert "Sign in" in thief.get("/cases").text  # a copy of the cookie is worth nothing any more
    again = visitor.post("/login", data={"token": TOKENS["read"]})
    assert "reader (read)" in Page(again.text).text


def test_only_paths_of_this_site_are_gone_back_to(workspace: Workspace, access: Access) -> None:
    for bad in ("//elsewhere.example", "/\\elsewhere.example", "https://elsewhere.example"):
        answer = opened(workspace, access).post(
            "/login", data={"token": TOKENS["read"], "next": bad}, follow_redirects=False
        )
        assert answer.headers["location"] == "/"
