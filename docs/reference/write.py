"""Write the generated reference: every verb of the command, every table and view with its columns.

python docs/reference/write.py [FOLDER]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Write cli.md and tables.md."""
    typer = [sys.executable, "-m", "typer", "flywheel.cli", "utils", "docs", "--name", "flywheel"]
    plain = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}
    (folder / "cli.md").write_bytes(subprocess.run(typer, check=True, stdout=subprocess.PIPE, env=plain).stdout)
    (folder / "tables.md").write_text(tables())


def tables() -> str:
    """The analysts' views, then the ledgers, each column with its type and meaning."""
    from flywheel.catalog import documentation
    from flywheel.schema import LEDGERS

    lines = ["# Tables", "", "What `flywheel sql` and `flywheel export` show, and what the ledgers' columns mean."]
    for view in documentation():
        lines += ["", f"## {view['view']}", ""]
        if schema := LEDGERS.get(view["view"]):
            lines += ["Append-only ledger.", "", "| column | type | meaning |", "|---|---|---|"]
            lines += [f"| `{f.name}` | {f.type} | {f.metadata[b'doc'].decode().replace('|', '/')} |" for f in schema]
        else:
            lines += [f"{view['meaning']}.", "", f"`{view['columns']}`"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
