"""Pictures of every page of a workspace's dashboard, at three widths, light and dark; and the few that the docs show.

`python -m benchmarks.screens WORKSPACE FOLDER [--each N]` follows links of pages as `benchmarks.accessibility` does,
and writes FOLDER/PAGE-WIDTH-SCHEME.png, each page as long as it is.
`python -m benchmarks.screens WORKSPACE --docs` writes docs/pictures/PAGE.webp instead: the top of the pages in `SHOWN`.
"""

from __future__ import annotations

import argparse
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.accessibility import SCHEMES, WIDTHS, pages
from benchmarks.browser import CHROMIUM, QUIET, served
from flywheel.core.workspace import Workspace

DOCS = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SHOWN = {"overview": "/", "compare": "/compare", "map": "/map?colour=track", "what-if": "/what-if"}
SIZE = (1280, 800)  # pixels of a picture of the docs before it is made smaller
SMALL = 800  # pixels, its width then


def shots(page: Any, address: str, each: int) -> Iterator[tuple[str, bytes]]:
    """(name, PNG) of every page in every form."""
    paths = list(pages(page, address, each=each))
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            for path in paths:
                page.goto(address + path, wait_until="networkidle")
                page.evaluate("() => { for (const image of document.images) image.loading = 'eager' }")
                page.wait_for_function("() => [...document.images].every((image) => image.complete)")
                name = re.sub(r"\W+", "-", path).strip("-")[:60] or "overview"
                yield f"{name}-{width}-{scheme}", page.screenshot(full_page=True)


def main() -> None:
    """Visit the pages, write the pictures, print their number and bytes."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", default=DOCS)
    parser.add_argument("--each", type=int, default=1, help="pages of one kind that are visited")
    parser.add_argument("--docs", action="store_true", help="write the pictures of the docs")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    written = []
    with served(Workspace(args.workspace, create=False)) as address, sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = chromium.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        if args.docs:
            for name, path in SHOWN.items():
                page.goto(address + path, wait_until="networkidle")
                image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                image.thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS)
                image.save(args.folder / f"{name}.webp", quality=80, method=6)
                written.append(args.folder / f"{name}.webp")
        else:
            for name, data in shots(page, address, args.each):
                (args.folder / f"{name}.png").write_bytes(data)
                written.append(args.folder / f"{name}.png")
        chromium.close()
    print(json.dumps({"pictures": len(written), "bytes": sum(p.stat().st_size for p in written)}))


if __name__ == "__main__":
    main()
