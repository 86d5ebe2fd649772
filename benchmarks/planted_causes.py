"""Plant causes of failures in the demo's world, and count the cases that routing sends to the right track.

python -m benchmarks.planted_causes --folder DIR [--seeds 2]

Unsure counts as wrong. Words removed from the pool → pretraining. Shapes that are frequent in the pool, with a model
after the base round only, which is a third of the steps that it needs for them (the `none` arm of
`benchmarks.flywheel_gain` shows it) → rl. Prompts that pass, garbled → prompt_enhancement.

Everything is kept in the folder; the same command resumes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.gain_arms import SHAPES, Options, finish
from flywheel.cases.attribution import attribute, probe
from flywheel.cases.events import load_cases
from flywheel.core.generator import Generator
from flywheel.core.records import RoundPlan
from flywheel.generators import describe, open_generator
from flywheel.presets import Preset
from flywheel.remedies.enhancer import enhance
from flywheel.remedies.index import CaptionIndex
from flywheel.remedies.retrieval import captions
from flywheel.rounds.context import Context
from flywheel.signals.drawing import sample_suite
from flywheel.signals.judging import judge_images
from flywheel.signals.results import load_results


def planted(options: Options, seed: int) -> list[tuple[str, str, str]]:
    """(cause, expected track, track) of every case with a planted cause."""
    removed = finish(options, seed, 1, without="word-")
    out = [("capability removed from the pool", "pretraining", t) for t in tracks(removed, ("typography",))]
    young = finish(options, seed, 1)
    out += [("policy under-trained", "rl", t) for t in tracks(young, SHAPES)]
    return out + [("prompt garbled", "prompt_enhancement", t) for t in garbled(young)]


def tracks(context: Context, capabilities: Sequence[str]) -> list[str]:
    """Tracks of a workspace's cases of these capabilities."""
    return [c.track or "unrouted" for c in load_cases(context.workspace).values() if c.capability in capabilities]


def garbled(context: Context) -> list[str]:
    """Tracks of the prompts that pass unchanged and fail once garbled."""
    workspace, preset = context.workspace, context.preset
    row = context.rows("rounds")[0]
    generator = open_generator(describe(workspace.path(row["checkpoint"])))
    passed = load_results(workspace, 1, "candidate")
    suite = [replace(p, text=garble(p.text)) for p in context.suite]
    images = sample_suite(
        suite, generator, workspace.path("garbled", "images"), settings=preset.evaluation, seed=context.job.seed
    )
    failing: dict[str, set[str]] = {}
    for p, outcomes in zip(suite, judge_images(suite, images)):
        for o in outcomes:
            if o.passed is False and passed.get((p.prompt_id, o.capability)):
                failing.setdefault(p.prompt_id, set()).add(o.capability)
    if not failing:
        return []
    plan = RoundPlan.read(context.workspace.round(1).plan)
    return probed(context, preset, [p for p in suite if p.prompt_id in failing], failing, generator, plan)


def probed(
    context: Context,
    preset: Preset,
    prompts: Sequence[Any],
    failing: Mapping[str, set[str]],
    generator: Generator,
    plan: RoundPlan,
) -> list[str]:
    """Tracks by experiment, as routing determines them."""
    index = CaptionIndex.build(captions(context.manifest(plan)))
    rows = probe(
        prompts,
        generator,
        context.workspace.path("garbled", "probes"),
        workspace=context.workspace,
        enhance=enhance,
        density=lambda texts: index.density(texts, preset.attribution.neighbours).tolist(),
        evaluation=preset.evaluation,
        settings=preset.attribution,
        seed=context.job.seed,
    )
    mine = [r for r in rows if r["capability"] in failing[r["prompt_id"]]]
    return [track for track, _ in attribute(pa.Table.from_pylist(mine), preset.attribution)]


def garble(prompt: str) -> str:
    """The prompt as a careless user types it: filler, digits, other quotation marks, extra spaces."""
    numbers = {" one ": " 1 ", " two ": " 2 ", " three ": " 3 "}
    text = f" {prompt} "
    for word, digit in numbers.items():
        text = text.replace(word, digit)
    quoted = text.split('"')
    text = "".join(part + ("„", "“")[n % 2] for n, part in enumerate(quoted[:-1])) + quoted[-1]
    return "please please can you draw me " + "  ".join(text.split())


def main() -> None:
    """Print the table, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder for all files; the same folder resumes")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--size", choices=("full", "quick"), default="full")
    parser.add_argument("--base-steps", type=int, default=1100)
    a = parser.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    options = Options(a.folder.resolve(), a.size, 1, a.base_steps, 800, 480, 4, probes=8)
    cases = [x for seed in range(a.seeds) for x in planted(options, seed)]
    print(f"{'planted cause':<34}{'cases':>6}{'right':>7}  tracks")
    for cause in dict.fromkeys(c for c, _, _ in cases):
        mine = [(e, t) for c, e, t in cases if c == cause]
        got = {t: sum(u == t for _, u in mine) for t in sorted({t for _, t in mine})}
        print(f"{cause:<34}{len(mine):>6}{sum(e == t for e, t in mine) / len(mine):>7.0%}  {got}")
    right = [e == t for _, e, t in cases]
    accuracy = round(sum(right) / len(right), 4) if right else None
    print(json.dumps({"attribution_accuracy": accuracy, "attribution_cases": len(right)}))


if __name__ == "__main__":
    main()
