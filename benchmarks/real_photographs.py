"""The loop on real photographs from which classes were removed: does it find out what is missing, and where it is?

python -m benchmarks.real_photographs --photos DIR --folder DIR [--missing 25] [--steps 300] [--seed 0]

DIR holds photographs of ImageNet classes, one of each, and captions.jsonl (file, caption). The plan, fixed before the
first run:

Classes. Of those whose own photograph passes the check of its caption (`imagenet`, at the size that is evaluated), the
seed draws `--missing` that are removed from the pool, and as many that stay. All others are in the pool, unjudged.
Suite. One prompt for each drawn class, in words that no caption has; checked by `imagenet`. Two pictures a prompt.
Round 1 trains on the pool, evaluates, and routes each failure by experiment. Then the photographs of the missing
classes become a second source, and round 2 plans and trains for what round 1 routed.

diagnosed: share of the missing classes' cases that round 1 routes to `pretraining`; goal 0.9.
falsely: the same share of the classes that stay. Each has a single photograph in the pool, so it is hardly less sparse
    around them: a high share here means that the diagnosis says little.
falsely_admitted (added after the first runs): the same, of those whose photograph curation admitted to the pool.
separation: the chance that a missing class has a lower density than one that stays (0.5: none).
retrieved: share of the missing classes whose own photograph is among the samples of round 2's remedy; and precision,
    the share of these samples, variants of retrieved ones included, that show a class of the suite.
before, after, control: failing pictures of the missing classes, by round 1, by round 2's candidate and by its control,
    which trains as long without the retrieved samples.

Everything is kept in the folder; the same command resumes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from curation.verify.checks import verify
from curation.verify.objects import object_checks
from flywheel.catalog.database import query
from flywheel.core.files import read_json, write_bytes
from flywheel.core.generator import png
from flywheel.core.image import decode, fitted
from flywheel.core.progress import Progress
from flywheel.core.records import RoundPlan
from flywheel.core.scorer import Item
from flywheel.core.workspace import Workspace
from flywheel.remedies.retrieval import captions
from flywheel.rounds.job import Job
from flywheel.rounds.run import run
from flywheel.signals.results import load_results

SIDE = 64  # pixels of evaluation
PRESET = """\
base = "tiny"
[training]
base_steps = {steps}
round_steps = {steps}
[evaluation]
suite = "{suite}"
pictures = 2
hidden = 0.0
[attribution]
seeds = 2
[plan]
max_targets = 1
min_cases = 2
samples = 200
[rewards]
updates = 0
"""


@dataclass(frozen=True)
class Photo:
    """A photograph, its caption, and the check of what the caption names."""

    file: str
    caption: str
    check: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its class."""
        return str(self.check["object"])

    @property
    def prompt(self) -> str:
        """What the suite asks for: the class in other words than the caption."""
        return f"{self.name}, photographed in its usual surroundings"


def recognised(photos: Path) -> list[Photo]:
    """Photographs with exactly one check, which they pass at the size that is evaluated."""
    lines = [json.loads(line) for line in (photos / "captions.jsonl").read_text().splitlines()]
    found = [(r, checks) for r in lines if len(checks := object_checks(r["caption"])) == 1]
    shown = [png(np.asarray(fitted(decode((photos / r["file"]).read_bytes()), SIDE, SIDE))) for r, _ in found]
    judged = verify([Item(s, r["caption"]) for s, (r, _) in zip(shown, found)], [c for _, c in found], scorers={})
    return [
        Photo(r["file"], r["caption"], checks[0]) for (r, checks), (outcome,) in zip(found, judged) if outcome.passed
    ]


def write_source(folder: Path, photos: Path, keep: Sequence[str]) -> Path:
    """A folder with these photographs and their captions."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in (photos / "captions.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["file"] in set(keep)]
    for line in kept:
        if not (folder / line["file"]).exists():
            shutil.copyfile(photos / line["file"], folder / line["file"])
    rows = [json.dumps({"file": r["file"], "caption": r["caption"]}) for r in kept]
    write_bytes(folder / "captions.jsonl", ("\n".join(rows) + "\n").encode())
    return folder


def write_suite(path: Path, drawn: Sequence[Photo]) -> Path:
    """The suite: a prompt per class."""
    rows = [
        {"prompt_id": p.file[:-4], "prompt": p.prompt, "task": "t2i", "references": [], "checks": [dict(p.check)]}
        for p in drawn
    ]
    write_bytes(path, "".join(json.dumps(r) + "\n" for r in rows).encode())
    return path


def failing(workspace: Workspace, number: int, arm: str, photos: Sequence[Photo]) -> float:
    """Share of the pictures of these classes that fail."""
    results = load_results(workspace, number, arm)
    return float(np.mean([1.0 - results[(p.file[:-4], "object")] for p in photos]))


def routed(workspace: Workspace, photos: Sequence[Photo]) -> tuple[float, list[float]]:
    """(share of the cases of these classes that round 1 routed to pretraining, their densities)."""
    ids = ", ".join(f"'{p.file[:-4]}'" for p in photos)
    select = f"""SELECT c.prompt_id, arg_min(e.track, e.at) AS track FROM case_events e JOIN cases c USING (case_id)
                 WHERE e.kind = 'routed' AND e.round = 1 AND c.prompt_id IN ({ids}) GROUP BY ALL"""
    tracks = [r["track"] for r in query(workspace, select)]
    density = query(workspace, f"SELECT density FROM probes WHERE round = 1 AND prompt_id IN ({ids})")
    return tracks.count("pretraining") / max(1, len(tracks)), [r["density"] for r in density]


def retrieved(workspace: Workspace, missing: Sequence[Photo], drawn: Sequence[Photo]) -> tuple[float, float]:
    """(share of missing classes whose photograph is in the remedy, share of the remedy that shows a drawn class)."""
    import pyarrow.parquet as pq

    table = pq.read_table(workspace.round(2).remedies / "candidates.parquet", columns=["caption"])
    shown = [str(c) for c in table["caption"].to_pylist()]
    of_suite = {p.caption for p in drawn}
    right = sum(c in of_suite for c in shown)
    return sum(p.caption in shown for p in missing) / len(missing), right / max(1, len(shown))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument(
        "--missing", type=int, default=25, help="classes that are removed, and as many that are judged too"
    )
    parser.add_argument("--steps", type=int, default=300, help="of each round's training")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    known = recognised(a.photos)
    order = np.random.default_rng(a.seed).permutation(len(known))[: 2 * a.missing]
    drawn = [known[i] for i in order]
    missing, there = drawn[: a.missing], drawn[a.missing :]
    every = [json.loads(line)["file"] for line in (a.photos / "captions.jsonl").read_text().splitlines()]
    gone = {p.file for p in missing}
    first = write_source(a.folder / "first", a.photos, [f for f in every if f not in gone])
    second = write_source(a.folder / "second", a.photos, sorted(gone))
    suite = write_suite(a.folder / "suite.jsonl", drawn)
    preset = a.folder / "photographs.toml"
    write_bytes(preset, PRESET.format(steps=a.steps, suite=suite.absolute()).encode())
    common = {"preset": str(preset), "seed": a.seed, "auto_approve": True}
    job = Job(str(a.folder.absolute() / "w"), str(first.absolute()), rounds=1, **common)
    run(job, progress=Progress())
    workspace = Workspace(job.workspace)
    diagnosed, densities = routed(workspace, missing)
    falsely, other = routed(workspace, there)
    plan = RoundPlan.read(workspace.round(1).plan)
    trained = {text for _, text in captions(workspace.path(read_json(workspace.snapshot(plan.snapshot))["manifest"]))}
    falsely_admitted, _ = routed(workspace, [p for p in there if p.caption in trained])
    run(Job(job.workspace, (str(first.absolute()), str(second.absolute())), rounds=2, **common), progress=Progress())
    found, precision = retrieved(workspace, missing, drawn)
    lower = np.subtract.outer(other, densities)
    figures: dict[str, Any] = {
        "recognised": len(known), "missing": len(missing), "diagnosed": diagnosed, "falsely": falsely,
        "falsely_admitted": falsely_admitted,
        "separation": float(np.mean((lower > 0) + 0.5 * (lower == 0))), "retrieved": found, "precision": precision,
        "before": failing(workspace, 1, "candidate", missing), "after": failing(workspace, 2, "candidate", missing),
        "control": failing(workspace, 2, "control", missing),
    }  # fmt: skip
    for name, value in figures.items():
        print(f"{name:<12} {value:.3f}" if isinstance(value, float) else f"{name:<12} {value}")
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}))


if __name__ == "__main__":
    main()
