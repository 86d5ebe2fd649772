"""Decisions about rounds."""

from dashboards.access import Access, Person
from flywheel.core.workspace import Workspace
from flywheel.rounds.promotion import incumbent
from tests.dashboards.visits import Page, opened, send, signed_in


def test_an_operator_decides_about_a_round_and_others_do_not(shared: Workspace) -> None:
    access = Access({"operator-has-this-token": Person("oda", "operate")})
    oda = opened(shared, access)
    oda.post("/login", data={"token": "operator-has-this-token"})
    assert send(oda, "/rounds/2", "/rounds/2/decision", kind="reject", why=" ").status_code == 422
    answer = send(oda, "/rounds/2", "/rounds/2/decision", kind="reject", why="faces look wrong")
    assert "reject by oda" in Page(answer.text).text and "faces look wrong" in answer.text
    assert incumbent(shared).round == 1
    assert "/rounds/2/decision" not in signed_in(shared, "ada").get("/rounds/2").text
