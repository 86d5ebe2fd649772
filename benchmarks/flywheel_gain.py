"""Measure the gain of the flywheel over as much untargeted data and over none, and its routing of planted causes.

python benchmarks/flywheel_gain.py --folder DIR [--seeds 5] [--rounds 3] [--part gain|attribution|all]

Gain. For each seed: the demo's world, a base round, then consecutive targeted rounds by the functions of `flywheel
run`. The arms of a round start from the same incumbent and train for equally many steps: `targeted` (the candidate),
`untargeted` (as many new samples from the same engines, in the proportions of the pool), and `no data` (what the
incumbent had: the pool, and the remedies of the rounds that led to it).
Reductions are relative, over the held-out prompts of a round's targeted capabilities. They are pooled over the rounds:
failures that an arm removed, divided by failures of its incumbents, so that each failure counts once. `…_by_round` is
the mean over seeds and rounds instead, where two failures of a late round weigh as much as sixty of the first.
Intervals come from resampling seeds. A capability is worse if the interval of its pooled, paired change is above 0.

Attribution plants a cause and counts the cases that reach its track (unsure counts as wrong). Words removed from the
pool → pretraining. Shapes that are frequent in the pool, with a model after the base round only, which is a third of
the steps that it needs for them (the `no data` arm shows it) → rl. Prompts that pass, garbled → prompt_enhancement.

Everything is kept in the folder; the same command resumes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from flywheel.cases.attribution import attribute, probe
from flywheel.cases.events import load_cases
from flywheel.core.files import write_bytes, write_json
from flywheel.core.generator import Generator
from flywheel.core.progress import Progress
from flywheel.core.records import MixEntry, RoundPlan, RoundResult
from flywheel.core.workspace import Workspace
from flywheel.demo.world import AMOUNTS, write_world
from flywheel.generators import describe, open_generator
from flywheel.presets import Preset, load_preset
from flywheel.remedies import data
from flywheel.remedies.enhancer import enhance
from flywheel.remedies.index import CaptionIndex
from flywheel.remedies.retrieval import captions
from flywheel.remedies.review import Item, Slot
from flywheel.rounds import steps
from flywheel.rounds.context import Context
from flywheel.rounds.job import Job
from flywheel.rounds.run import run
from flywheel.signals import evaluation
from flywheel.signals.drawing import sample_suite
from flywheel.signals.judging import judge_images
from flywheel.signals.results import Results, load_results

BOOTSTRAPS = 2000
MOST = 99.0  # the gain if untargeted data repairs nothing
ARMS = ("targeted", "untargeted", "no data")
SHAPES = ("object", "color", "position")


@dataclass(frozen=True)
class Options:
    """Folder and sizes of the experiment."""

    folder: Path
    size: Literal["full", "quick"]
    rounds: int
    base_steps: int
    round_steps: int
    samples: int
    probes: int


def preset_file(options: Options, name: str, base_steps: int) -> Path:
    """The demo's preset with the experiment's numbers."""
    text = (resources.files("flywheel.presets") / "demo.toml").read_text("utf-8")
    suite = "demo" if options.size == "full" else "demo-quick"
    numbers = {"suite": f'"{suite}"', "base_steps": base_steps, "round_steps": options.round_steps}
    for key, value in {**numbers, "seeds": options.probes, "samples": options.samples}.items():
        text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
    path = options.folder / f"{name}.toml"
    write_bytes(path, text.encode())
    return path


def finish(options: Options, name: str, *, seed: int, rounds: int, base_steps: int, without: str = "") -> Context:
    """Run until `rounds` rounds are finished; `without`: prefix of files that are removed from the source."""
    folder = options.folder / f"{name}-{seed}"
    source = folder / "source"
    write_world(source, seed=seed, size=options.size)
    if without:
        lines = (source / "captions.jsonl").read_text().splitlines()
        kept = [line for line in lines if not json.loads(line)["file"].startswith(without)]
        source = folder / "source-without"
        shutil.copytree(
            folder / "source",
            source,
            ignore=shutil.ignore_patterns(f"{without}*", "captions.jsonl"),
            dirs_exist_ok=True,
        )
        write_bytes(source / "captions.jsonl", ("\n".join(kept) + "\n").encode())
    preset = str(preset_file(options, name, base_steps))
    job = Job(str(folder / "w"), str(source), preset=preset, seed=seed, rounds=rounds)
    run(job, progress=Progress())
    return Context(Workspace(job.workspace), job, load_preset(preset), Progress())


# Gain ----------------------------------------------------------------------------------------------------------------
def untargeted(context: Context, plan: RoundPlan) -> Results:
    """Results of the arm with as many new samples as the candidate, in the proportions of the demo's pool."""
    from training.worker import TrainingRun, train_all

    amounts = AMOUNTS["full" if context.preset.evaluation.suite == "demo" else "quick"]
    pool = dict.fromkeys(SHAPES, amounts.singles / 3)  # {capability: samples}
    pool |= {"count": amounts.groups, "typography": amounts.words}
    pool |= {"editing": amounts.recolours + amounts.moves, "identity": amounts.keeps}
    total = sum(m.samples or 0 for m in plan.requests)
    share = sum(m.share for m in plan.requests)
    kept = tuple(m for m in plan.mix if m not in plan.requests)
    every, why = sum(pool.values()), "in the proportions of the pool"
    mix = [
        MixEntry(slice=c, samples=samples, share=share * n / every, reason=why)
        for c, n in pool.items()
        if (samples := round(total * n / every))
    ]
    number, workspace = plan.round, context.workspace
    folder = workspace.path("untargeted", f"round-{number:04d}")
    untargeted_plan = replace(plan, mix=(*kept, *mix))
    base = data.BasePool(context.manifest(plan), context.held_out, context.preset)
    rows = data.collect(folder, untargeted_plan, [], base)
    accepted = Slot(1, "accepted", "auto-approve")
    items = {
        (r["capability"], r["sample_id"]): Item(
            "", number, r["capability"], r["sample_id"], 0.0, r["caption"], {}, (accepted,)
        )
        for r in rows
    }
    data.shard(folder, untargeted_plan, context.held_out, items)
    sources = steps.sources(context, replace(plan, mix=kept))
    sources += [{"manifest": str(folder / "manifest.json"), "slice": m.slice, "share": m.share} for m in mix]
    arm = TrainingRun(
        out_dir=str(workspace.round(number).checkpoint("untargeted")),
        sources=sources,
        recipe=plan.recipe,
        init=str(workspace.path(plan.incumbent)) if plan.incumbent else None,
        seed=plan.seed + number,
        steps=plan.steps,
    )
    (checkpoint,) = train_all([arm], progress=context.progress)
    return evaluation.evaluate(
        workspace,
        context.suite,
        open_generator(describe(checkpoint)),
        workspace.relative(checkpoint),
        round_=number,
        arm="untargeted",
        settings=context.preset.evaluation,
        seed=plan.seed,
        progress=context.progress,
    )


def one_seed(options: Options, seed: int) -> list[dict[str, Any]]:
    """One row per targeted round: its targets, and the results of the incumbent and of each arm."""
    rows = []
    for number in range(2, 2 + options.rounds):
        context = finish(options, "gain", seed=seed, rounds=number, base_steps=options.base_steps)
        plan = RoundPlan.read(context.workspace.round(number).plan)
        verdict = RoundResult.read(context.workspace.round(number).result).verdict
        targets = tuple(m.slice for m in plan.requests)
        results = {
            "incumbent": load_results(context.workspace, steps.incumbent_round(context, plan), "candidate"),
            "targeted": load_results(context.workspace, number, "candidate"),
        }
        if targets:
            results |= {
                "no data": load_results(context.workspace, number, "control"),
                "untargeted": untargeted(context, plan),
            }
        rows.append({"seed": seed, "round": number, "targets": targets, "verdict": verdict, "results": results})
    return rows


def failures(row: Mapping[str, Any]) -> np.ndarray:
    """Failures of the round's targets, in prompts (shares of pictures summed): of the incumbent, then of each arm."""
    counted = [row["results"][name] for name in ("incumbent", *ARMS)]
    return np.array([sum(1 - ok for (_, c), ok in r.items() if c in row["targets"]) for r in counted], float)


def gain(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Reductions over all rounds, the gain with its interval over seeds, and the capabilities that got worse."""
    aimed = [r for r in rows if r["targets"]]
    if not aimed:
        return {"note": "no round targeted a capability: train longer, or lower min_cases"}
    seeds = sorted({r["seed"] for r in aimed})
    per_seed = [np.array([failures(r) for r in aimed if r["seed"] == seed]) for seed in seeds]
    pooled = np.array([f.sum(axis=0) for f in per_seed])
    by_round = np.array([reduction(f).mean(axis=0) for f in per_seed])
    draws = np.random.default_rng(0).integers(0, len(seeds), (BOOTSTRAPS, len(seeds)))
    reductions = reduction(pooled.sum(axis=0))
    drawn = reduction(pooled[draws].sum(axis=1))
    bounds = np.quantile(drawn, (0.025, 0.975), axis=0)
    return {
        **{
            f"reduction_{arm.replace(' ', '_')}": [round(float(x), 4) for x in (reductions[n], *bounds[:, n])]
            for n, arm in enumerate(ARMS)
        },
        **_gains("gain_vs_untargeted", "gain_interval", reductions, drawn),
        **_gains("gain_by_round", "gain_by_round_interval", by_round.mean(axis=0), by_round[draws].mean(axis=1)),
        "worse": (worse := _worse(rows)),
        "capabilities_worse": len(worse),
        "seeds": len(seeds),
    }


def reduction(counts: np.ndarray) -> np.ndarray:
    """[…, 1 + arms] failures → […, arms] relative reductions against the first."""
    return 1 - counts[..., 1:] / counts[..., :1]


def _gains(name: str, interval: str, reductions: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
    bounds = np.quantile([_ratio(d) for d in drawn], (0.025, 0.975))
    return {name: round(_ratio(reductions), 3), interval: [round(float(b), 3) for b in bounds]}


def _ratio(reductions: np.ndarray) -> float:
    targeted, baseline = reductions[:2]
    return min(MOST, float(targeted / baseline)) if baseline > 0 else (MOST if targeted > 0 else 0.0)


def _worse(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Untargeted capabilities whose failures rose with the candidates, as "capability in round n"."""
    out = []
    for number in sorted({r["round"] for r in rows}):
        mine = [r for r in rows if r["round"] == number]
        for capability in sorted({c for r in mine for _, c in r["results"]["targeted"]}):
            changes = np.array(
                [
                    float(r["results"]["incumbent"][k]) - float(ok)
                    for r in mine
                    if capability not in r["targets"]
                    for k, ok in r["results"]["targeted"].items()
                    if k[1] == capability
                ]
            )
            if len(changes):
                draws = np.random.default_rng(0).integers(0, len(changes), (BOOTSTRAPS, len(changes)))
                if np.quantile(changes[draws].mean(axis=1), 0.025) > 0:
                    out.append(f"{capability} in round {number}")
    return out


# Attribution ---------------------------------------------------------------------------------------------------------
def planted(options: Options, seed: int) -> list[tuple[str, str, str]]:
    """(cause, expected track, track) of every case with a planted cause."""
    removed = finish(options, "removed", seed=seed, rounds=1, base_steps=options.base_steps, without="word-")
    out = [("capability removed from the pool", "pretraining", t) for t in tracks(removed, ("typography",))]
    young = finish(options, "gain", seed=seed, rounds=1, base_steps=options.base_steps)
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
    """Print the tables, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder for all files; the same folder resumes")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="first seed; seeds can be run separately")
    parser.add_argument("--rounds", type=int, default=3, help="consecutive targeted rounds")
    parser.add_argument("--attribution-seeds", type=int, default=2)
    parser.add_argument("--part", choices=("gain", "attribution", "all"), default="all")
    parser.add_argument("--size", choices=("full", "quick"), default="full")
    parser.add_argument("--base-steps", type=int, default=1100)
    parser.add_argument("--round-steps", type=int, default=800)
    parser.add_argument("--samples", type=int, default=480)
    parser.add_argument("--probes", type=int, default=8, help="further seeds per failing prompt")
    a = parser.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    options = Options(a.folder.resolve(), a.size, a.rounds, a.base_steps, a.round_steps, a.samples, a.probes)
    figures: dict[str, Any] = {}
    if a.part in ("gain", "all"):
        rows = []
        for seed in range(a.first_seed, a.first_seed + a.seeds):
            rows += one_seed(options, seed)
        print(f"{'seed':>4} {'round':>5} {'verdict':<8} {'targets':<24}" + "".join(f"{x:>12}" for x in ARMS))
        for r in rows:
            cells = "".join(f"{x:>12.1%}" for x in reduction(failures(r))) if r["targets"] else ""
            print(f"{r['seed']:>4} {r['round']:>5} {r['verdict']:<8} {', '.join(r['targets']):<24}{cells}")
        figures |= gain(rows)
    if a.part in ("attribution", "all"):
        cases = [x for seed in range(a.first_seed, a.first_seed + a.attribution_seeds) for x in planted(options, seed)]
        print(f"\n{'planted cause':<34}{'cases':>6}{'right':>7}  tracks")
        for cause in dict.fromkeys(c for c, _, _ in cases):
            mine = [(e, t) for c, e, t in cases if c == cause]
            got = {t: sum(u == t for _, u in mine) for t in sorted({t for _, t in mine})}
            print(f"{cause:<34}{len(mine):>6}{sum(e == t for e, t in mine) / len(mine):>7.0%}  {got}")
        right = [e == t for _, e, t in cases]
        figures |= {
            "attribution_accuracy": round(sum(right) / len(right), 4) if right else None,
            "attribution_cases": len(right),
        }
    write_json(options.folder / "figures.json", figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
