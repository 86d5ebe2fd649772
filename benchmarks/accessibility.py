"""axe-core on every page of a workspace's dashboard, at three widths, light and dark.

`python -m benchmarks.accessibility WORKSPACE [--pages N]` follows the links of the pages from the first one on, at most
`--each` pages of one kind (`/cases/…`), and prints each rule that is broken with one of the elements that break it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urlsplit

from benchmarks.browser import CHROMIUM, QUIET, served
from flywheel.core.workspace import Workspace

WIDTHS = (390, 1024, 1440)  # pixels
SCHEMES = ("light", "dark")
LINKS = "() => [...document.querySelectorAll('a[href]:not([download])')].map((e) => e.href)"
FILES = ("/files/", "/pictures/", "/static/")


def pages(page: Any, address: str, *, each: int) -> Iterator[str]:
    """Addresses of the pages that can be reached by links, `each` of a kind, the first page first."""
    waiting, known, kinds = ["/"], {"/"}, Counter[str]()
    while waiting:
        path = waiting.pop(0)
        bare = path.split("?")[0]  # `/cases/1` and `/cases/2` are of one kind, `/cases` and `/arena` of two
        above = bare.rsplit("/", 1)[0]
        kind = (f"{above}/" if above else bare) + ("?" if "?" in path else "")
        kinds[kind] += 1
        if kinds[kind] > each:
            continue
        answer = page.goto(address + path)
        if "html" not in answer.headers.get("content-type", ""):
            continue
        yield path
        for link in page.evaluate(LINKS):
            parts = urlsplit(urldefrag(link)[0])
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            if link.startswith(address) and not parts.path.startswith(FILES) and target not in known:
                known.add(target)
                waiting.append(target)


def violations(page: Any, axe: Any, *rules: str) -> Iterator[tuple[str, str, str]]:
    """(rule, impact, an element) of each rule that the open page breaks; of all rules, if none is named."""
    options = {"runOnly": list(rules)} if rules else None
    for broken in axe.run(page, options=options).response["violations"]:
        yield broken["id"], broken["impact"], broken["nodes"][0]["html"][:160]


def main() -> None:
    """Visit every page in every form, print the table and the object."""
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--each", type=int, default=6, help="pages of one kind that are visited")
    args = parser.parse_args()
    axe, found, visits = Axe(), Counter[tuple[str, str, str, str]](), 0
    with served(Workspace(args.workspace, create=False)) as address, sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = chromium.new_page()
        paths = list(pages(page, address, each=args.each))
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                for path in paths:
                    page.goto(address + path)
                    visits += 1
                    for rule, impact, element in violations(page, axe):
                        found[path, rule, impact, element] += 1
        chromium.close()
    print(f"{'page':40} {'times':>5} {'impact':9} rule: element")
    for (path, rule, impact, element), times in sorted(found.items()):
        print(f"{path[:40]:40} {times:5} {impact:9} {rule}: {element}")
    print(json.dumps({"axe_violations": found.total(), "pages": len(paths), "visits": visits}))


if __name__ == "__main__":
    main()
