"""Who gets in, and what each role may do."""

from pathlib import Path

import pytest

from dashboards.access import ROLES, Access, Person, load_tokens
from dashboards.app import MAX_FORM, serve
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.dashboards.conftest import opened
from tests.dashboards.test_report import Page

TOKENS = {role: f"{role}-token-of-24-letters" for role in ROLES}


@pytest.fixture
def access() -> Access:
    return Access({TOKENS[role]: Person(f"{role}er", role) for role in ROLES})


def hidden(html: str, name: str) -> str:
    """Value of a hidden field."""
    return next(a["value"] for t, a in Page(html).elements if t == "input" and a.get("name") == name)


def test_a_stranger_sees_nothing_and_is_sent_back_after_signing_in(workspace: Workspace, access: Access) -> None:
    visitor = opened(workspace, access)
    for path in ("/", "/cases", "/sql?q=select+1", "/files/samples/round-0001-candidate/count-000.png"):
        answer = visitor.get(path, follow_redirects=False)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/login?next=")
    page = visitor.get("/cases?status=closed")
    assert "Sign in" in page.text and str(workspace.root) not in page.text
    wrong = visitor.post("/login", data={"token": "wrong", "next": "/"})
    assert wrong.status_code == 403 and "Nobody has this token" in wrong.text
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
    assert "Sign in" in visitor.post("/logout", data={"csrf": hidden(page.text, "csrf")}).text


def test_a_session_cannot_be_forged(workspace: Workspace, access: Access) -> None:
    visitor = opened(workspace, access)
    other = Access(access.people)  # another process has another key
    for value in (other.start("operateer"), "", "x", "6f.9999999999.0.ä"):
        cookie = f"{access.cookie}={value}".encode("latin-1")
        assert visitor.get("/", headers={"Cookie": cookie}, follow_redirects=False).status_code == 303


def test_a_bearer_token_opens_pages_to_scripts(workspace: Workspace, access: Access) -> None:
    visitor = opened(workspace, access)
    assert visitor.get("/cases", headers={"Authorization": f"Bearer {TOKENS['read']}"}).status_code == 200
    assert visitor.get("/cases", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_only_paths_of_this_site_are_gone_back_to(workspace: Workspace, access: Access) -> None:
    for bad in ("//elsewhere.example", "/\\elsewhere.example", "https://elsewhere.example"):
        answer = opened(workspace, access).post(
            "/login", data={"token": TOKENS["read"], "next": bad}, follow_redirects=False
        )
        assert answer.headers["location"] == "/"


def test_another_site_cannot_lead_here_or_send_forms(workspace: Workspace) -> None:
    visitor = opened(workspace)
    assert visitor.get("/", headers={"Host": "elsewhere.example"}).status_code == 400
    token = hidden(visitor.get("/review?reviewer=ada").text, "csrf")
    sent = {"csrf": token, "reviewer": "ada"}
    assert visitor.post("/review/claim", data=sent, headers={"Origin": "http://elsewhere.example"}).status_code == 403
    assert visitor.post("/review/claim", data=sent | {"csrf": ""}).status_code == 403


def test_forms_are_bounded(workspace: Workspace) -> None:
    visitor = opened(workspace)
    assert visitor.post("/review/claim", data={"reviewer": "x" * MAX_FORM}).status_code == 413
    assert visitor.post("/review/claim", content=iter([b"a=b"])).status_code == 413  # no Content-Length


def test_tokens_are_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(f'[ada]\nrole = "review"\ntoken = "{"a" * 16}"\n')
    assert load_tokens(path) == {"a" * 16: Person("ada", "review")}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names nobody"),
        ("[ada", "cannot be read as TOML"),
        ("ada = 3", 'needs role = "read"'),
        ('[ada]\nrole = "admin"\ntoken = "aaaaaaaaaaaaaaaa"', 'needs role = "read"'),
        ('[ada]\nrole = "read"\ntoken = "short"', "16 characters"),
        (
            '[a]\nrole = "read"\ntoken = "aaaaaaaaaaaaaaaa"\n[b]\nrole = "read"\ntoken = "aaaaaaaaaaaaaaaa"',
            "of its own",
        ),
    ],
)
def test_a_bad_token_file_says_what_to_do(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=why):
        load_tokens(path)


def test_others_are_let_in_only_with_tokens(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="--host 0.0.0.0 lets other machines in: give --tokens FILE"):
        serve(workspace, host="0.0.0.0", port=0)
