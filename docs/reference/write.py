"""Generate the reference: every verb of the command, every view with its columns, and the ready queries.

python docs/reference/write.py [FOLDER]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Write cli.md and tables.md."""
    typer = [sys.executable, "-m", "typer", "flywheel.cli.main", "utils", "docs", "--name", "flywheel"]
    plain = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}
    (folder / "cli.md").write_bytes(subprocess.run(typer, check=True, stdout=subprocess.PIPE, env=plain).stdout)
    (folder / "tables.md").write_text(tables())


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
