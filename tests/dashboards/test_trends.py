"""Trends over rounds in a browser."""

import json
from typing import Any

from benchmarks.browser import served
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace


def test_trends_are_drawn(browser: Any, empty: Workspace) -> None:
    for number, rate in ((1, 0.5), (2, 0.25)):
        result = {"failure_rate": {"count": rate}, "prompts": {"count": 40}, "gate": [], "targets": []}
        row = {"round": number, "verdict": "PROMOTE", "checkpoint": f"c{number}", "result": json.dumps(result)}
        Ledger(empty, "rounds").append([row], key=f"r{number}")
    with served(empty) as address:
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto(address)
        canvas = page.locator("figure[data-chart] canvas")
        canvas.wait_for()
        pixels = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
        drawn = canvas.evaluate(f"c => ({pixels})(c).filter((v, i) => i % 4 == 3 && v).length")
        assert drawn > 2000, "the lines, the band and the labels"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than a phone"
