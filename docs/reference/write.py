"""Generate the reference: every verb of the command, every view with its columns, the ready queries, and the API.

python docs/reference/write.py [FOLDER]
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

from dashboards.app import create_app
from dashboards.site import API
from flywheel.core.workspace import Workspace


def main(folder: Path) -> None:
    """Write cli.md, tables.md and api.md."""
    typer = [sys.executable, "-m", "typer", "flywheel.cli.main", "utils", "docs", "--name", "flywheel"]
    plain = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}
    (folder / "cli.md").write_bytes(subprocess.run(typer, check=True, stdout=subprocess.PIPE, env=plain).stdout)
    (folder / "tables.md").write_text(tables())
    (folder / "api.md").write_text(api())


ABOUT = """# API

`flywheel dashboard` answers the address of each page with `/api` before it by the values that the page shows, as JSON:
the same filters, roles and limits. Scripts send `Authorization: Bearer TOKEN`; without a valid token the answer is 401.
What is wrong is `{"error": SENTENCE}` with status 403, 404, 422 or 429. Records are objects, times are in ISO 8601, and
what is no finite number is `null`. Lists are paged: `page` counts from 1, and `paging` has the total and the size.

`/healthz` needs no token: 200 while the workspace can be read, else 503. Every answer has a `Server-Timing` header:
milliseconds to read the data, to make the page, and in total.

```
curl -H "Authorization: Bearer $TOKEN" "http://127.0.0.1:8050/api/cases?capability=typography&status=routed"
```
"""


def api() -> str:
    """Markdown of every page that is JSON too: its parameters, and the fields of its answer."""
    with TemporaryDirectory() as folder:
        routes = create_app(Workspace(Path(folder) / "w")).routes
    lines = [ABOUT]
    for route in sorted(routes, key=lambda r: getattr(r, "path", "")):
        if getattr(route, "path", "").startswith(API):
            function = route.endpoint.__wrapped__  # type: ignore[attr-defined]
            signature = inspect.signature(function, eval_str=True)
            lines += [f"## {route.path}", "", inspect.getdoc(function) or "", ""]  # type: ignore[attr-defined]
            names = [f"`{n}`" for n in signature.parameters if n != "request"]
            lines += [f"Parameters: {', '.join(names) if names else 'none'}.", ""]
            record = signature.return_annotation
            lines += [inspect.getdoc(record) or "", "", "| field | type |", "|---|---|"]
            lines += [f"| `{f.name}` | {str(f.type).replace('|', '/')} |" for f in fields(record)] + [""]
    return "\n".join(lines)


def tables() -> str:
    """Markdown of all views with type and meaning of each column, then of the ready queries."""
    from flywheel.catalog.queries import ready
    from flywheel.catalog.views import ALL, meaning
    from flywheel.core.lens import duck

    lines = ["# Tables", "", "What `flywheel sql` and `flywheel export` show."]
    for view, (about, schema) in ALL.items():
        lines += ["", f"## {view}", "", f"{about[0].upper()}{about[1:]}.", "", "| column | type | meaning |"]
        lines += ["|---|---|---|"]
        lines += [f"| `{f.name}` | {duck(f.type)} | {meaning(f).replace('|', '/')} |" for f in schema]
    lines += ["", "# Ready queries", "", "`flywheel sql --ready NAME` answers them.", "", "| name | question |"]
    lines += ["|---|---|"] + [f"| `{q.name}` | {q.question} |" for q in ready().values()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
