"""Forms are only for those who have the role."""

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import send, signed_in


def test_who_may_only_read_neither_reviews_nor_votes(shared: Workspace) -> None:
    eve = signed_in(shared, "eve")
    before = len(Ledger(shared, "reviews").rows()), len(Ledger(shared, "battles").rows())
    assert "ask for one with the role review" in eve.get("/review").text
    for path in ("/review/claim", "/review/decide", "/arena/vote", "/rounds/2/decision"):
        answer = send(eve, "/review", path, decision="accept", choice="left")
        assert answer.status_code == 403 and "This needs the role" in answer.text
    assert (len(Ledger(shared, "reviews").rows()), len(Ledger(shared, "battles").rows())) == before
