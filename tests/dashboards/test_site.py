"""Forms are only for those who have the role, and who send them in time."""

import socket
import time
from pathlib import Path

import pytest

from dashboards import site
from dashboards.app import create_app
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import send, signed_in
from tests.training.rl_parts import serving


def test_who_may_only_read_neither_reviews_nor_votes(shared: Workspace) -> None:
    eve = signed_in(shared, "eve")
    before = len(Ledger(shared, "reviews").rows()), len(Ledger(shared, "battles").rows())
    assert "ask for one with the role review" in eve.get("/review").text
    for path in ("/review/claim", "/review/decide", "/arena/vote", "/rounds/2/decision"):
        answer = send(eve, "/review", path, decision="accept", choice="left")
        assert answer.status_code == 403 and "This needs the role" in answer.text
    assert (len(Ledger(shared, "reviews").rows()), len(Ledger(shared, "battles").rows())) == before


@pytest.mark.parametrize("path", ["/login", "/review/claim"])
def test_a_form_that_does_not_come_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(site, "BODY_SECONDS", 0.3)
    host = "127.0.0.1"
    with serving(create_app(Workspace(tmp_path / "w"))) as url:
        port = int(url.rpartition(":")[2])
        head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        while True:
            try:
                connection = socket.create_connection((host, port), timeout=20)
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        with connection:
            connection.sendall(f"{head}Content-Length: 100\r\n\r\na=".encode())
            assert b" 408 " in connection.recv(1000).split(b"\r\n")[0]
