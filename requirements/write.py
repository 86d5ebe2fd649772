"""Write the hash of every file that the install may take, from setup.cfg and constraints.txt: run `make lock`.

Each layer lists only what the one below lacks. torch, torchvision and CUDA are left out: whether they are CPU or CUDA
builds is the user's choice, so constraints.txt fixes their versions only.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
LAYERS = {"base": [], "demo": ["--extra", "demo"], "dev": ["--extra", "dev"], "site": ["--extra", "site"]}
BY_VERSION = re.compile(r"torch|torchvision|triton|nvidia-.*|cuda-.*")
OPTIONS = "--universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --quiet"


def main() -> None:
    """Write a file per layer, and one for the OpenCV that replaces the others."""
    written: set[str] = set()
    for layer, extras in LAYERS.items():
        found = {n: text for n, text in locked(HERE.parent / "setup.cfg", extras).items() if n not in written}
        write(layer, {n: text for n, text in found.items() if not BY_VERSION.fullmatch(n)})
        written |= set(found)
    version = re.search(r"^opencv-contrib-python==(\S+)", (HERE / "base.txt").read_text(), re.M)[1]
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "opencv.in")
        wanted.write_text(f"opencv-contrib-python-headless=={version}\n")
        write("opencv", locked(wanted, ["--no-deps"]))


def locked(source: Path, options: list[str]) -> dict[str, str]:
    """Package name → its pinned requirement with hashes."""
    command = ["uv", "pip", "compile", str(source), "-c", str(HERE.parent / "constraints.txt"), *OPTIONS.split()]
    text = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=True).stdout
    blocks = re.split(r"^(?=\S)", text, flags=re.M)
    return {re.match(r"[^=\[ ]+", block)[0]: block for block in blocks if "==" in block}


def write(layer: str, found: dict[str, str]) -> None:
    """One file, in the order of names."""
    (HERE / f"{layer}.txt").write_text("# Written by `make lock`.\n" + "".join(found[n] for n in sorted(found)))
    print(f"requirements/{layer}.txt: {len(found)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
