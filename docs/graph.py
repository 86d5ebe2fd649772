"""Draw the imports between the packages: `make graph`. Fails when an arrow points up.

The rows are the layers of `.importlinter`, core at the bottom; a line's width grows with the number of imports.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from configparser import ConfigParser
from pathlib import Path

import grimp
import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

HERE = Path(__file__).parent
INK, ROOM, UP = "#33415c", "#e8edf4", "#c0392b"


def layers() -> list[list[str]]:
    """Packages of each layer of the import contract, the highest first."""
    config = ConfigParser()
    config.read(HERE.parent / ".importlinter")
    lines = config["importlinter:contract:layers"]["layers"].split("\n")
    return [line.replace("|", " ").replace(":", " ").split() for line in lines if line.strip()]


def imports(packages: list[str]) -> Counter[tuple[str, str]]:
    """{(importer, imported): number of imports} between packages."""
    graph = grimp.build_graph(*sorted({p.partition(".")[0] for p in packages}))
    counts: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = tuple(next((p for p in packages if f"{m}.".startswith(f"{p}.")), "") for m in (module, imported))
            if all(pair) and pair[0] != pair[1]:
                counts[pair[0], pair[1]] += 1
    return counts


def draw(rows: list[list[str]], counts: Counter[tuple[str, str]], path: Path) -> list[tuple[str, str]]:
    """Write the picture to `path`; returns the arrows that point up."""
    places = {p: ((i + 0.5) / len(row), -n) for n, row in enumerate(rows) for i, p in enumerate(row)}
    figure, axes = plt.subplots(figsize=(10, 1.05 * len(rows)))
    up = [(a, b) for a, b in counts if places[a][1] < places[b][1]]
    for number, ((a, b), count) in enumerate(sorted(counts.items())):
        bend = 0.12 * (-1) ** number * min(3, abs(places[a][1] - places[b][1]))
        style = {"arrowstyle": "-|>", "connectionstyle": f"arc3,rad={bend}", "shrinkA": 14, "shrinkB": 14}
        color = UP if (a, b) in up else INK
        style |= {"lw": 0.4 + 0.5 * math.log2(1 + count), "color": color, "alpha": 0.35}
        axes.annotate("", places[b], places[a], arrowprops=style)
    for package, (x, y) in places.items():
        axes.text(x, y, package, ha="center", va="center", bbox={"boxstyle": "round,pad=0.4", "fc": ROOM, "ec": INK})
    axes.set(xlim=(0, 1), ylim=(-len(rows) + 0.4, 0.6))
    axes.axis("off")
    figure.savefig(path, bbox_inches="tight")
    return up


def main() -> int:
    """Draw, and say which arrows point up."""
    rows = layers()
    counts = imports([p for row in rows for p in row])
    path = HERE / "graph.svg"
    for a, b in (up := draw(rows, counts, path)):
        print(f"{a} imports {b}, which is above it", file=sys.stderr)
    print(f"{path}: {len(counts)} arrows, {sum(counts.values())} imports, {len(up)} point up")
    return 1 if up else 0


if __name__ == "__main__":
    sys.exit(main())
