"""Measure what it is worth to aim the data of a round at its failures.

python -m benchmarks.flywheel_gain --folder DIR [--seeds 8] [--rounds 3] [--size full|quick] [--report]

The plan, fixed before the first run:

World. The demo's, generated anew for each seed, with its held-out suite; four pictures a prompt. Round 1 trains the
base model. Then come `--rounds` rounds by the functions of `flywheel run`, each from what the gate has promoted, with
RL and distillation switched off: what differs between the arms is the data alone.
Arms. All start from the round's incumbent and train for equally many steps. All but the last get equally many new
samples, made by the product's own engines, in the same share of the batches:
  targeted      what the round planned for its cases: the candidate
  balanced      the same amount spread evenly over all capabilities of the suite; failures are not looked at
  shuffled      the plan's amounts, for other capabilities than those that it targets, drawn at random
  proportional  in the proportions of the pool
  none          no new samples: the pool, and the remedies that led to the incumbent
Net effect of an arm: failing pictures of the round's targets under `none`, less those under the arm, as a share of the
incumbent's; pooled over rounds and seeds, so that each failure counts once. Rounds without a target do not count.
gain_vs_balanced, gain_vs_untargeted: net effect of `targeted` over that of `balanced`, and of `proportional`; goals
    1.5 and 2, with the interval above 1. An arm that removes nothing makes the ratio 99. gain_by_round: the first of
    these by mean over rounds of the share of what `none` leaves failing, so that a late round weighs as much as an
    early one.
Intervals of 95 % resample the seeds 10,000 times. With `shuffled` aimed wrongly, its net effect must not be above 0
    (seen after the runs: cards for colours show words too, so an arm that is aimed at colour teaches some typography).
capabilities_worse: capabilities that a round did not target, and whose failure rate rose from incumbent to candidate,
    with the interval over seeds above 0; goal 0. Listed besides: those whose interval reaches the gate's margin.
second_…: the same net effects and ratios of typography, as Tesseract reads it, which admitted no remedy (the product
    reads with PaddleOCR). unseen_…: net effects, after the last round, on words that no picture of pool or remedies
    shows, made of letters at places where the taught words have them. Captions of the demo cannot ask for a font.

--shipped was added after the first run, whose base models (1,000 steps) could not learn words in a round: all seeds
then share the world of seed 0, its suite and the checkpoint that ships with the package, and differ in training and
drawing.

Rehearsal came later still: where the first checkpoint is given, as by --shipped, a round also trains on fresh samples
of capabilities that it does not target (`flywheel.rounds.plan.make_plan`). All arms, `none` too, train on the same.

Everything is kept in the folder; the same command resumes, and `--report` reads what is finished. The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gain_arms import Options, kept_rows, one_seed
from benchmarks.gain_figures import ARMS, INCUMBENT, Row, by_round, effects, others, seeds_of, targeted_failures
from flywheel.presets import load_preset

GAINS = ("gain_vs_balanced", "gain_vs_untargeted")


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Every figure of the plan."""
    out: dict[str, Any] = {
        "seeds": len(seeds_of(rows)),
        "rounds": len(rows),
        "aimed": sum(bool(r.targets) for r in rows),
    }
    for which, prefix in (("failed", ""), ("second", "second_"), ("unseen", "unseen_")):
        found = effects(_written(rows) if prefix else rows, which)
        out |= {f"{prefix}{k}": v[0] if k in GAINS else v for k, v in found.items()}
        out |= {f"{prefix}{k}_interval": found[k][1:] for k in GAINS if k in found}
    if pooled := by_round(rows):
        out |= {"gain_by_round": pooled[0], "gain_by_round_interval": pooled[1:]}
    return out | others(rows, load_preset("demo").gate.margin)


def _written(rows: Sequence[Row]) -> list[Row]:
    """The rounds that target typography, as if it were their only target: it is all that the second judge reads."""
    return [Row(**vars(r) | {"targets": ("typography",)}) for r in rows if "typography" in r.targets]


def table(rows: Sequence[Row]) -> None:
    """Print failing prompts of the targets, by round and seed."""
    print(f"{'seed':>4} {'round':>5} {'verdict':<8} {'targets':<24}" + "".join(f"{x:>13}" for x in (INCUMBENT, *ARMS)))
    for r in rows:
        cells = "".join(f"{x:>13.1f}" for x in targeted_failures(r, r.failed)) if r.targets else ""
        print(f"{r.seed:>4} {r.round:>5} {r.verdict:<8} {', '.join(r.targets):<24}{cells}")


def main() -> None:
    """Print the table, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder for all files; the same folder resumes")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=0, help="first seed; seeds can be run separately")
    parser.add_argument("--rounds", type=int, default=3, help="consecutive targeted rounds")
    parser.add_argument("--size", choices=("full", "quick"), default="full", help="of the world and its suite")
    parser.add_argument("--base-steps", type=int, default=1100)
    parser.add_argument("--round-steps", type=int, default=800)
    parser.add_argument("--samples", type=int, default=480)
    parser.add_argument("--pictures", type=int, default=4, help="per prompt")
    parser.add_argument("--shipped", action="store_true", help="start from the package's checkpoint, in one world")
    parser.add_argument("--report", action="store_true", help="run nothing: the figures of all finished rounds")
    a = parser.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    options = Options(
        a.folder.resolve(), a.size, a.rounds, a.base_steps, a.round_steps, a.samples, a.pictures, a.shipped
    )
    if a.report:
        rows = kept_rows(options.folder)
    else:
        rows = [r for seed in range(a.first_seed, a.first_seed + a.seeds) for r in one_seed(options, seed)]
    table(rows)
    print(json.dumps(figures(rows)))


if __name__ == "__main__":
    main()
