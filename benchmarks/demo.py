"""The demo's figures: run it twice as a user does, and print the figures that the README claims.

python benchmarks/demo.py [--quick] [--workspace DIR]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def timed(*arguments: str) -> tuple[float, str]:
    """(wall seconds, last line of stdout) of one `flywheel` command; progress goes to stderr as usual."""
    began = time.monotonic()
    out = subprocess.run(
        [sys.executable, "-m", "flywheel.cli", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return time.monotonic() - began, out.stdout.splitlines()[-1]


def reduction(before: float, after: float) -> float | None:
    """Relative reduction of a failure rate; None if nothing failed before."""
    return 1 - after / before if before else None


def measure(workspace: Path, quick: bool) -> dict[str, Any]:
    """Run the demo twice; returns its figures. Seconds are wall seconds of whole commands."""
    demo = ["demo", "--workspace", str(workspace), "--json", *(["--quick"] if quick else [])]
    first, line = timed(*demo)
    again, _ = timed(*demo)
    help_, _ = timed("--help")
    summary = json.loads(line)
    base, repaired = summary["rounds"][:2]
    rates = {
        capability: {
            "targeted": capability in repaired["targets"],
            "before": base["failure_rate"][capability],
            "after": repaired["failure_rate"][capability],
            "control": repaired["control_failure_rate"].get(capability),
        }
        for capability in repaired["failure_rate"]
    }
    targets = [r for r in rates.values() if r["targeted"]]
    before, after, control = (sum(r[k] for r in targets) for k in ("before", "after", "control"))
    return {
        "demo_s": round(first, 1),
        "again_s": round(again, 1),
        "help_s": round(help_, 2),
        "peak_gib": round(summary["peak_rss_bytes"] / 2**30, 2),
        "verdict": repaired["verdict"],
        "targeted_reduction": reduction(before, after),
        "control_reduction": reduction(before, control),
        "rates": rates,
        **{k: summary[k] for k in ("input", "admitted", "dropped", "quarantined")},
    }


def main() -> None:
    """Print the table, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the two-minute demo")
    parser.add_argument("--workspace", type=Path, help="new folder to keep (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(arguments.workspace or Path(scratch, "w"), arguments.quick)
    print(f"{'capability':<14}{'before':>8}{'after':>8}{'control':>9}")
    for capability, r in figures["rates"].items():
        control = "" if r["control"] is None else f"{r['control']:.0%}"
        print(
            f"{capability:<14}{r['before']:>8.0%}{r['after']:>8.0%}{control:>9}{'  targeted' if r['targeted'] else ''}"
        )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
