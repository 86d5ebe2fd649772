"""What a round leaves in Prefect's UI."""

from flows.artifacts import markdown, rate_table
from tests.flows.driver import SUMMARY


def test_round_result_becomes_artifacts(recorded: dict) -> None:
    assert recorded["artifacts"] == ["flywheel-failure-rates", "flywheel-gate", "flywheel-round"]


def test_markdown_says_what_a_reader_asks_first() -> None:
    text = markdown(SUMMARY)
    assert "1,250 input = 1,000 admitted + 200 dropped + 50 quarantined" in text
    assert "- round 2: **HOLD**, 2 cases fixed, 1 broken" in text


def test_rate_table_keeps_a_missing_control_missing() -> None:
    assert rate_table(SUMMARY) == [
        {"round": 1, "capability": "count", "failure_rate": 0.75, "control_failure_rate": None},
        {"round": 2, "capability": "count", "failure_rate": 0.5, "control_failure_rate": 0.7},
    ]
