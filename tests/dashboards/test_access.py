"""Tokens, sessions, and who is served without them."""

from pathlib import Path

import pytest

from dashboards.access import ROLES, Access, Person, load_tokens
from dashboards.app import serve
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import opened

TOKENS = {role: f"{role}-token-of-24-letters" for role in ROLES}


@pytest.fixture
def access() -> Access:
    return Access({TOKENS[role]: Person(f"{role}er", role) for role in ROLES})


def test_a_session_cannot_be_forged(workspace: Workspace, access: Access) -> None:
    visitor = opened(workspace, access)
    foreign = Access(access.people)  # another process has another key
    for value in (foreign.start("operateer"), "", "x", "6f.9999999999.0.ä"):
        cookie = f"{access.cookie}={value}".encode("latin-1")
        assert visitor.get("/", headers={"Cookie": cookie}, follow_redirects=False).status_code == 303


def test_a_bearer_token_opens_pages_to_scripts(workspace: Workspace, access: Access) -> None:
    visitor = opened(workspace, access)
    assert visitor.get("/cases", headers={"Authorization": f"Bearer {TOKENS['read']}"}).status_code == 200
    assert visitor.get("/cases", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_tokens_are_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(f'[ada]\nrole = "review"\ntoken = "{"a" * 16}"\n')
    assert load_tokens(path) == {"a" * 16: Person("ada", "review")}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names nobody"),
        ("[ada", "cannot read .*tokens.toml: "),
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
