"""What a real browser makes of the pages: keys, phone width, both colour schemes, what a screen reader needs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from benchmarks.accessibility import violations
from benchmarks.browser import served
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.operate.image_server import Served, create_app
from flywheel.operate.image_workers import Queue as DrawingQueue
from flywheel.operate.image_workers import Worker
from flywheel.remedies.review import Queue
from flywheel.rounds.sample import promoted_system
from tests.dashboards.workspace import PROBED, build, candidates, picture, place_on_map
from tests.flywheel.cli.command import flywheel
from tests.flywheel.operate.in_service import SIDE, in_service
from tests.training.rl_parts import serving

PAGES = ("/", "/cases?track=human&status=open", "/cases?capability=typography", f"/cases/{PROBED}", "/rounds/2",
         "/review?reviewer=ada",
         "/arena?judge=ada", "/playground", "/funnel", "/samples?outcome=dropped", "/training", "/what-if",
         "/why?id=typography-8", "/sql?q=select+*+from+cases", "/map?colour=track",
         "/compare", "/calibration?verifier=count&reviewer=ada",
         "/cost?core=1", "/sources", "/coverage")  # fmt: skip


UNNAMED = """() => [...document.querySelectorAll("input:not([type=hidden]), select, textarea, button, img")]
    .filter((e) => !(e.labels?.length || e.textContent.trim() || e.getAttribute("aria-label") || e.alt))
    .map((e) => e.outerHTML.slice(0, 80))"""


FAINT = """() => [...document.querySelectorAll("button")].map((e) => [getComputedStyle(e), e.textContent])
    .filter(([s]) => s.color === s.backgroundColor).map(([, text]) => text)"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace of its own, with three samples to review."""
    workspace = build(tmp_path_factory.mktemp("browser") / "w")
    place_on_map(workspace)
    candidates(workspace, 3, ["s0", "s1", "s2"])
    common = {"capability": "typography", "evidence": {"case": PROBED, "ocr": 0.5}}
    rows = [common | {"sample_id": f"s{n}", "caption": f"the word “天气” {n}", "priority": n / 4} for n in range(3)]
    Queue(workspace).add(3, rows)
    return workspace


@pytest.fixture(scope="module")
def address(shared: Workspace) -> Iterator[str]:
    with served(shared) as url:
        yield url


def test_pages_fit_a_phone_and_name_what_they_show(browser: Any, address: str) -> None:
    context = browser.new_context(color_scheme="light", viewport={"width": 360, "height": 740})
    page, axe = context.new_page(), Axe()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in PAGES:
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, f"{path} is wider than a phone"
        assert page.evaluate(UNNAMED) == [] and page.evaluate(FAINT) == []
        assert list(violations(page, axe)) == [], path
        assert [page.locator(x).count() for x in ("main", "h1", "header nav", "footer")] == [1, 1, 1, 1]
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(FAINT) == [] and list(violations(page, axe, "color-contrast")) == [], f"{path}, dark"
        page.emulate_media(color_scheme="light")
    assert messages == [], "no script may fail, nor the content-security policy refuse anything"
    assert all(url.startswith((address, "data:")) for url in asked)
    context.close()


def test_a_reviewer_needs_only_the_keyboard(browser: Any, address: str, shared: Workspace) -> None:
    page = browser.new_page()
    page.goto(f"{address}/review?reviewer=ada")
    with page.expect_navigation():  # keys are heard once the page has loaded
        page.keyboard.press("n")
    page.get_by_text("review 1 of 1").wait_for()
    page.keyboard.press("e")
    page.keyboard.press("End")
    page.keyboard.type(" rare")  # the letters r and a are text here
    page.keyboard.press("Escape")
    with page.expect_navigation():
        page.keyboard.press("a")
    with page.expect_navigation():
        page.keyboard.press("r")
    page.locator("article.bench").wait_for()
    decided = {x.sample_id: (x.outcome, x.caption) for x in Queue(shared).items(3).values()}
    assert decided == {
        "s2": ("accepted", "the word “天气” 2 rare"),
        "s1": ("rejected", "the word “天气” 1"),
        "s0": (None, "the word “天气” 0"),
    }
    page.close()


def test_a_lasso_is_drawn_by_the_pointer_or_set_by_keys(browser: Any, address: str) -> None:
    page, axe = browser.new_page(viewport={"width": 1024, "height": 1400}), Axe()
    page.goto(f"{address}/map?colour=track")
    choose = page.get_by_role("button", name="Select with a lasso")
    choose.click()
    map_ = page.locator(".map")
    assert map_.evaluate("e => e === document.activeElement") and list(violations(page, axe)) == []
    around = map_.bounding_box()
    across = [around["x"] + around["width"] * share for share in (0.005, 0.995)]
    down = [around["y"] + around["height"] * share for share in (0.005, 0.995)]
    page.mouse.move(across[0], down[0])
    page.mouse.down()
    for x, y in ((across[1], down[0]), (across[1], down[1]), (across[0], down[1])):
        page.mouse.move(x, y, steps=20)
    with page.expect_navigation(url="**within=**"):
        page.mouse.up()
    assert len(page.url.split("within=")[1].split("+")) == 4, "a line that is drawn straight has no corners"
    everything = page.locator(".lead").inner_text()
    assert "299 samples and 2 open cases in your selection" in everything

    page.goto(f"{address}/map")
    choose.focus()
    page.keyboard.press("Enter")
    for key, times in (("ArrowLeft", 5), ("ArrowUp", 5), ("ArrowRight", 10), ("ArrowDown", 10)):
        for _ in range(times):
            page.keyboard.press(f"Shift+{key}")
        page.keyboard.press("Space")
    page.keyboard.press("Space")
    page.keyboard.press("Backspace")  # takes back the last one
    with page.expect_navigation(url="**within=**"):
        page.keyboard.press("Enter")
    most = int(page.locator(".lead").inner_text().split()[0])
    assert 200 < most < 260, "all but the quarter below the line from the left edge to the lower right corner"
    page.get_by_role("link", name=f"Browse these {most} samples").click()
    assert page.locator(".lead").inner_text().startswith(f"{most} samples")
    page.close()


def test_a_heading_sorts_its_table(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}/sql?q=select+*+from+(values+('b',+9),('a',+10),('c',+1000),('d',+null))+t(name,+size)")
    names = "rows => rows.map((row) => row.cells[0].textContent).join('')"
    for heading, once, twice in (("name", "abcd", "dcba"), ("size", "bacd", "cabd")):  # numbers by size, empty last
        button = page.get_by_role("button", name=heading, exact=True)
        for wanted, direction in ((once, "ascending"), (twice, "descending")):
            button.focus()
            page.keyboard.press("Enter")
            assert page.locator("tbody tr").evaluate_all(names) == wanted
            assert [h.get_attribute("aria-sort") for h in page.locator("th").all()].count(direction) == 1
    page.close()


def test_a_judge_votes_by_key_and_the_pictures_load(browser: Any, address: str, shared: Workspace) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/arena?judge=bob&one=checkpoints/round-0001-candidate&other=checkpoints/round-0002-candidate")
    assert page.evaluate("[...document.images].map((i) => i.naturalWidth)") == [64, 64]
    assert not [url for url in asked if "/files/" in url]
    with page.expect_navigation():
        page.keyboard.press("ArrowRight")
    assert "you chose right" in page.get_by_role("status").inner_text()
    assert [(b["winner"], b["judge"]) for b in Ledger(shared, "battles").rows()] == [("model_b", "bob")]
    page.close()


def test_a_filter_answers_in_place_and_stays_in_the_address(browser: Any, address: str, shared: Workspace) -> None:
    page = browser.new_page()
    page.goto(f"{address}/cases")
    page.get_by_label("checkpoint").select_option("checkpoints/round-0002-candidate")
    page.wait_for_url("**checkpoint=checkpoints*")
    page.locator(".card .shot img").first.focus()
    page.keyboard.press("Enter")
    page.locator("dialog.viewer").wait_for()  # pictures that came later open by key too
    page.keyboard.press("Escape")
    page.locator("#filter-status").select_option("closed")
    page.get_by_text("No case matches").wait_for()  # what the newest fails is not closed
    page.close()


def test_pictures_open_whole_and_lead_to_their_neighbours(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}/cases?capability=typography")
    first = page.locator(".card .shot img").first
    first.focus()
    page.keyboard.press("Enter")
    viewer = page.locator("dialog.viewer")
    viewer.wait_for()
    width = "() => document.querySelector('dialog.viewer img').getBoundingClientRect().width"
    before = page.evaluate(width)
    assert "side=" not in viewer.locator("img").get_attribute("src"), "the whole picture, not the thumbnail"
    page.keyboard.press("+")
    assert page.evaluate(width) > before
    page.keyboard.press("Escape")
    assert not viewer.is_visible()
    page.goto(f"{address}/samples")
    page.locator(".card .shot img").nth(1).click()
    viewer.wait_for()
    page.get_by_role("button", name="Close").click()
    assert not viewer.is_visible()
    page.close()


def test_a_thumb_in_the_playground_becomes_a_case(browser: Any, tmp_path: Path) -> None:
    """From the click to the case: the page, the image server that draws with the checkpoint, and the command."""
    workspace, axe = in_service(tmp_path / "w"), Axe()
    (tmp_path / "mine.png").write_bytes(picture(0, True))
    queue = DrawingQueue([Worker(workspace.root)], limit=4)
    app = create_app(queue, Served(lambda: promoted_system(workspace)), "")
    with serving(app) as images, served(workspace, images=f"{images}/v1") as url:
        page = browser.new_page(viewport={"width": 360, "height": 740})
        for uploaded in ([], [str(tmp_path / "mine.png")]):
            page.goto(f"{url}/playground")
            page.get_by_label("What to draw").fill("a sign with the word “OPEN”")
            page.get_by_label("Pictures to edit").set_input_files(uploaded)
            page.get_by_role("button", name="Draw", exact=True).click()
            drawn = page.get_by_alt_text("picture drawn for")
            drawn.wait_for(timeout=120_000)
            assert drawn.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == SIDE
            assert page.get_by_alt_text("picture that was edited").count() == len(uploaded)
            assert list(violations(page, axe)) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            page.get_by_label("Reason").fill("the word is misspelled")
            with page.expect_navigation():
                page.get_by_role("button", name="Wrong").click()
            assert "Recorded: a signal that it fails" in page.get_by_role("status").inner_text()
        page.close()
    for verb in ("collect", "route"):
        assert flywheel("signals", verb, "-w", workspace.root).returncode == 0
    cases = json.loads(flywheel("cases", "-w", workspace.root, "--json").stdout)
    assert sorted(c["capability"] for c in cases) == ["typography", "typography"]
    assert {c["prompt"] for c in cases} == {"a sign with the word “OPEN”"}


def test_the_two_pictures_of_a_pair_open_side_by_side_and_move_as_one(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 900, "height": 700})
    page.goto(f"{address}/compare")
    page.locator("[data-pair] img").nth(3).click()  # the second picture of the second pair
    viewer = page.locator("dialog.viewer")
    viewer.wait_for()
    assert viewer.locator("img").count() == 2
    assert [("before" in a, "after" in a) for a in viewer.locator("img").evaluate_all("x => x.map((i) => i.alt)")] == [
        (True, False), (False, True),
    ]  # fmt: skip
    assert viewer.locator("p").inner_text().endswith(f"(2 of {page.locator('[data-pair]').count()})")
    widths = "x => x.map((i) => i.getBoundingClientRect().width)"
    viewer.locator("img").evaluate_all("x => Promise.all(x.map((i) => i.decode()))")
    before = viewer.locator("img").evaluate_all(widths)
    for _ in range(5):
        page.keyboard.press("+")
    larger = viewer.locator("img").evaluate_all(widths)
    assert larger[0] == larger[1] > 2 * before[0], "both are zoomed"
    places = "x => x.map((d) => [d.scrollLeft, d.scrollTop])"
    page.evaluate("document.querySelectorAll('.panes > div')[1].scrollTo(120, 60)")
    # `wait_for_function` would evaluate a text, which the content-security policy forbids.
    look = "const look = () => (d.scrollLeft ? done() : requestAnimationFrame(look)); look();"
    page.locator(".panes > div").first.evaluate(f"(d) => new Promise((done) => {{ {look} }})")
    assert viewer.locator(".panes > div").evaluate_all(places) == [[120, 60], [120, 60]]
    page.keyboard.press("ArrowRight")
    assert viewer.locator("p").inner_text().split("(")[-1].startswith("3 of")
    page.close()


def test_a_part_of_the_map_is_dragged_and_its_samples_are_browsed(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 1100})
    page.goto(f"{address}/map?colour=track")
    box = page.locator(".map").bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + box["height"] - 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    with page.expect_navigation():
        page.mouse.up()
    inside = int(page.locator(".lead").inner_text().split()[0])
    assert 60 < inside < 299 and "in this part" in page.locator(".lead").inner_text()
    assert page.evaluate("document.querySelector('.map img').naturalWidth") == 768
    with page.expect_navigation():
        page.locator(".map img").click()  # zooms in
    assert 0 < int(page.locator(".lead").inner_text().split()[0]) < inside
    shown = page.locator(".lead").inner_text().split()[0]
    page.get_by_role("link", name=f"Browse these {shown} samples").click()
    page.wait_for_url("**within=*")
    assert page.locator(".lead").inner_text().startswith(f"{shown} ")
    page.close()


def test_a_reviewer_judges_blind_by_key(browser: Any, address: str, shared: Workspace) -> None:
    page = browser.new_page()
    page.goto(f"{address}/calibration?verifier=count&reviewer=ada")
    for key in "pfu":
        with page.expect_navigation():
            page.keyboard.press(key)
    rows = Ledger(shared, "human_verdicts").rows()
    assert [(r["passed"], r["blind"], r["verifier"]) for r in rows] == [
        (True, True, "count"), (False, True, "count"), (None, True, "count"),
    ]  # fmt: skip
    page.close()
