"""For the site of the documentation (`make site`): files of the project that pages link to come with it, as text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)#]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The page with links out of `docs/` led to the copies of those files; folders have none, and lose the link."""
    from mkdocs.structure.files import File

    here = Path(config["docs_dir"]) / page.file.src_uri

    def led(link: re.Match[str]) -> str:
        target = (here.parent / link[2]).resolve()
        if target.is_relative_to(config["docs_dir"]):
            return link[0]
        if not target.is_file():
            return link[1]
        place = f"source/{target.relative_to(ROOT).as_posix()}.txt"
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, abs_src_path=str(target)))
        return f"[{link[1]}]({'../' * page.file.src_uri.count('/')}{place})"

    return _LINK.sub(led, markdown)
