"""The one-file report, read as a browser reads it."""

import re

import pytest

from dashboards.report import render
from flywheel.catalog.database import query
from flywheel.catalog.queries import ready
from flywheel.core.files import read_json
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import Page
from tests.dashboards.workspace import HOSTILE


@pytest.fixture(scope="module")
def html(workspace: Workspace) -> str:
    return render(workspace)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def result(workspace: Workspace) -> dict:
    return read_json(workspace.path("rounds", "round-0002", "result.json"))


def test_markup_is_balanced_and_ids_are_unique(page: Page) -> None:
    assert page.open == []
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_links_inside_the_page_lead_somewhere(page: Page) -> None:
    ids = {a.get("id") for _, a in page.elements}
    targets = {a["href"] for t, a in page.elements if t == "a"}
    assert targets
    assert all(href.startswith("#") and href[1:] in ids for href in targets)


def test_nothing_is_loaded_from_outside(page: Page, html: str) -> None:
    addresses = [a[k] for _, a in page.elements for k in ("src", "srcset", "data", "poster", "action") if a.get(k)]
    assert addresses
    assert all(x.startswith("data:image/") for x in addresses)
    assert not [t for t, _ in page.elements if t in {"script", "link", "iframe", "object", "embed", "base"}]
    assert "url(" not in html
    assert "@import" not in html
    policy = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_size_stays_below_five_megabytes(html: str) -> None:
    assert len(html.encode()) < 5_000_000


def test_hostile_text_is_shown_not_run(page: Page) -> None:
    assert HOSTILE in page.text
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]


def test_same_workspace_same_text(workspace: Workspace, html: str) -> None:
    assert render(workspace) == html


def test_first_screen_says_what_the_round_did(page: Page) -> None:
    assert "Round 2 cut failures in typography and count by" in page.text
    assert "Round 1: PROMOTE" in page.text
    assert "Round 2: PROMOTE" in page.text
    assert "2 cases broken, 24 fixed: PROMOTE" in page.text


def test_counts_add_up_in_words(page: Page) -> None:
    assert "312 = 225 + 75 + 12 : every input row is accounted for" in page.text.replace("12:", "12 :")


def test_counts_that_do_not_add_up_are_said_so(workspace: Workspace, tmp_path) -> None:
    bare = Workspace(tmp_path / "w")
    row = {"snapshot": "s", "policy": "p", "manifest": "m", "input": 10, "admitted": 5, "dropped": 2, "quarantined": 1}
    Ledger(bare, "snapshots").append([row], key="s")
    assert "the counts do not add up" in Page(render(bare)).text


def test_funnel_names_every_filter_and_what_is_not_configured(page: Page) -> None:
    for name in ("broken file", "resolution", "exact duplicate", "entropy", "token length", "ocr match"):
        assert name in page.text
    assert "alignment not configured: every row passes unchecked" in page.text
    assert "Not configured here, so not applied: aesthetics, alignment" in page.text


def test_drop_and_quarantine_reasons_carry_examples(page: Page) -> None:
    assert "resolution 40 cards/0000.png 120 256" in page.text
    assert "truncated or corrupt 5 bad/1-0.jpg truncated or corrupt: image file ends early <b>x</b>" in page.text


def test_rates_of_every_arm_are_there_as_text(page: Page) -> None:
    rates = [a for t, a in page.elements if t == "td" and a.get("class") == "r control"]
    assert len(rates) >= 5
    assert re.search(r"typography targeted .* incumbent 92.% candidate 42.% control 88.% 24 prompts", page.text)


def test_gate_has_a_line_per_check(workspace: Workspace, page: Page) -> None:
    for line in result(workspace)["gate"]:
        assert re.search(rf"{line['check']} (\(targeted\) )?{line['outcome']}", page.text)


def test_fixed_and_broken_cases_show_before_and_after(workspace: Workspace, page: Page) -> None:
    assert len(result(workspace)["fixed"]) == 24
    for case in result(workspace)["broken"]:
        assert case in page.text
    captions = page.text.count("before"), page.text.count("after")
    assert min(captions) >= 14
    assert len([1 for t, a in page.elements if t == "img" and a.get("alt") == "candidate’s output"]) == 14


def test_plan_gives_its_reasons(page: Page) -> None:
    assert "22 open cases: 22 routed to pretraining" in page.text
    assert "keeps what the model can do" in page.text
    assert "89 text card (11 dropped by entry checks)" in page.text
    assert "Waiting on other tracks: 8 human" in page.text


def test_loss_curves_of_both_arms(page: Page) -> None:
    lines = [a["class"] for t, a in page.elements if t == "polyline"]
    assert {"candidate", "control", "candidate held-out", "control held-out"} <= set(lines)


def test_ready_questions_are_there_and_find_something_here(workspace: Workspace, page: Page) -> None:
    for name, wanted in ready().items():
        assert f"flywheel sql --ready {name} --workspace" in page.text
        assert query(workspace, wanted.sql) or name == "cost_per_fix", name  # no cost is recorded here


def test_an_empty_workspace_has_a_report_too(empty: Workspace) -> None:
    text = Page(render(empty)).text
    assert "No round has finished yet" in text
    assert "Nothing has been curated yet" in text


def test_a_held_round_is_not_sold_as_a_success(workspace: Workspace, tmp_path) -> None:
    bare = Workspace(tmp_path / "w")
    held = result(workspace) | {"verdict": "HOLD", "reason": "no significant win"}
    import json

    row = {k: held[k] for k in ("round", "verdict", "checkpoint", "incumbent", "snapshot")}
    Ledger(bare, "rounds").append([row | {"result": json.dumps(held)}], key="r")
    text = Page(render(bare)).text
    assert "Round 2 is on hold" in text
    assert "No significant win." in text
    assert "cut failures" not in text
