"""Does `flywheel fsck` find every damaged file? Flips, removals and truncations over every kind of file of a workspace.

python benchmarks/flips.py WORKSPACE [--damages 1000] [--seed 0]

The workspace is copied. Each pass damages at most one file of a folder, runs fsck once, and looks whether a finding
names each damaged file. A kind of file is its folder below the root and its suffix. A damage that is not found counts
as harmless only if the file was empty.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from flywheel.operate.findings import ERROR, Finding
from flywheel.operate.fsck import fsck

WAYS = ("flip", "removal", "truncation")


@dataclass(frozen=True)
class Damage:
    """One damaged file."""

    path: Path
    kind: str
    way: str
    before: bytes

    def apply(self, rng: random.Random) -> None:
        """Damage the file."""
        if self.way == "removal":
            self.path.unlink()
        elif self.way == "truncation":
            self.path.write_bytes(self.before[: rng.randrange(len(self.before))] if self.before else b"")
        elif self.before:
            data = bytearray(self.before)
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            self.path.write_bytes(bytes(data))

    def mend(self) -> None:
        """Restore the file."""
        self.path.write_bytes(self.before)


def kind_of(path: Path, root: Path) -> str:
    """`checkpoints/*.safetensors`: the folder below the root and the suffix; records of hashes are a kind."""
    parts = path.relative_to(root).parts
    if ".hashes" in parts:
        return ".hashes"
    name = f"*{path.suffix}" if path.suffix in (".parquet", ".png", ".jpg") else re.sub(r"\d{2,}", "*", path.name)
    return f"{parts[0]}/{name}" if len(parts) > 1 else path.name


def passes(root: Path, count: int, rng: random.Random) -> Iterator[list[tuple[Path, str, str]]]:
    """Lists of (file, kind, way), one file of a folder at most; kinds take turns, so that rare ones come as often."""
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(root.rglob("*")):
        if path.is_file():
            kinds[kind_of(path, root)].append(path)
    made, turn = 0, 0
    while made < count:
        chosen: list[tuple[Path, str, str]] = []
        folders: set[Path] = set()
        for kind in rng.sample(sorted(kinds), len(kinds)):
            path = rng.choice(kinds[kind])
            folder = path.parent.parent if path.parent.name in (".hashes", "_delta_log") else path.parent
            if folder not in folders and made + len(chosen) < count:
                folders.add(folder)
                chosen.append((path, kind, WAYS[(turn + len(chosen)) % len(WAYS)]))
        made, turn = made + len(chosen), turn + 1
        yield chosen


def findings(root: Path) -> tuple[list[Finding], str]:
    """What fsck finds; and what it raised, empty for nothing. A refused marker is a finding about it."""
    try:
        return list(fsck(Workspace(root, create=False)).findings), ""
    except UsageError as error:
        return [Finding(ERROR, "workspace.json", str(error), "")], ""
    except Exception as error:  # noqa: BLE001 - counted
        return [], f"{type(error).__name__}: {error}"


def measure(workspace: Path, count: int, seed: int) -> dict[str, object]:
    """Damage a copy of the workspace `count` times."""
    rng, tried, found, harmless, raised = random.Random(seed), Counter[str](), Counter[str](), 0, []
    ways, missed, errors, seconds = Counter[str](), [], 0, []
    with tempfile.TemporaryDirectory(prefix="flips-") as folder:
        root = Path(folder, "w")
        shutil.copytree(workspace, root)
        clean, failure = findings(root)
        before = {f.path for f in clean}
        if failure or any(f.severity == ERROR for f in clean):
            raise UsageError(f"{workspace} is not sound before any damage: {failure or clean}")
        for chosen in passes(root, count, rng):
            marker = [c for c in chosen if c[0].name == "workspace.json"]
            for group in (marker, [c for c in chosen if c not in marker]):
                damages = [Damage(p, kind, way, p.read_bytes()) for p, kind, way in group]
                for damage in damages:
                    damage.apply(rng)
                began = time.monotonic()
                named, failure = findings(root) if damages else ([], "")
                seconds.append(time.monotonic() - began)
                raised += [failure] if failure else []
                by_path = {f.path: f.severity for f in sorted(named, key=lambda f: f.severity, reverse=True)}
                by_path = {path: severity for path, severity in by_path.items() if path not in before}
                for damage in damages:
                    damage.mend()
                    name = str(damage.path.relative_to(root))
                    tried[damage.kind] += 1
                    ways[damage.way] += 1
                    if name in by_path:
                        found[damage.kind] += 1
                        errors += by_path[name] == ERROR
                    elif not damage.before:
                        harmless += 1
                        found[damage.kind] += 1
                    else:
                        missed.append(f"{damage.way} of {name}")
    print(f"{'kind of file':44} {'damages':>8} {'found':>8}")
    for kind in sorted(tried):
        print(f"{kind:44} {tried[kind]:8} {found[kind] / tried[kind]:8.1%}")
    for line in [*missed[:20], *raised[:5]]:
        print(f"missed: {line}")
    total = sum(tried.values())
    return {
        "damages": total,
        "kinds": len(tried),
        **{f"{way}s": ways[way] for way in WAYS},
        "flips_found": sum(found.values()) / total,
        "errors": errors,
        "harmless": harmless,
        "tracebacks": len(raised),
        "fsck_s": round(sorted(seconds)[len(seconds) // 2], 2),
    }


def main() -> None:
    """Print the table, and the figures as one JSON object in the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--damages", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(measure(options.workspace, options.damages, options.seed)))


if __name__ == "__main__":
    main()
