"""What `benchmarks.flywheel_gain` runs: consecutive rounds of a seed, and the arms that train beside a candidate."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal

from PIL import Image

from benchmarks.gain_figures import ARMS, INCUMBENT, Counts, Row
from flywheel.core.files import read_json, write_bytes, write_json
from flywheel.core.progress import Progress
from flywheel.core.records import MixEntry, RoundPlan, RoundResult
from flywheel.core.workspace import Workspace
from flywheel.demo.palette import BACKGROUNDS, INKS
from flywheel.demo.recipes import RECIPES
from flywheel.demo.start import FOLDER
from flywheel.demo.suite import PROMPTS, write_suite
from flywheel.demo.word_cards import WORDS, Word, word_caption, word_checks
from flywheel.demo.world import AMOUNTS, write_world
from flywheel.generators import describe, open_generator
from flywheel.presets import load_preset
from flywheel.remedies import data
from flywheel.remedies.review import Item, Slot
from flywheel.rounds import steps
from flywheel.rounds.context import Context
from flywheel.rounds.job import Job
from flywheel.rounds.run import run
from flywheel.rounds.stages import sources
from flywheel.signals import evaluation
from flywheel.signals.drawing import picture_name
from flywheel.signals.results import Results, load_results
from flywheel.signals.suite import Prompt, load_suite, write_rows

RUN_ARMS = {"targeted": "candidate", "none": "control"}  # what a round of the product trains itself
SHAPES = ("object", "color", "position")
UNSEEN = ("CAP", "MAN", "FAN", "HAT", "CUT", "MAT")  # letters at places where the taught words have them
ARM_SEED = 1000  # from a round's seed to that of its other arms' samples
ENLARGED = 256  # side at which the second judge reads, pixels


@dataclass(frozen=True)
class Options:
    """Folder and sizes of the experiment."""

    folder: Path
    size: Literal["full", "quick"]
    rounds: int
    base_steps: int
    round_steps: int
    samples: int
    pictures: int
    shipped: bool = False  # all seeds share the first world and the package's checkpoint
    probes: int = 3  # further seeds per failing prompt


def one_seed(options: Options, seed: int) -> list[Row]:
    """The rows of a seed; each finished round is kept in the folder and read from there."""
    rows = []
    for number in range(2, 2 + options.rounds):
        path = options.folder / "rows" / f"seed-{seed}-round-{number}.json"
        if not path.exists():
            row = one_round(options, seed, number)
            path.parent.mkdir(exist_ok=True)
            write_json(path, vars(row))
        rows.append(read_row(path))
    return rows


def kept_rows(folder: Path) -> list[Row]:
    """Every finished round of the folder."""
    return [read_row(path) for path in sorted((folder / "rows").glob("*.json"))]


def read_row(path: Path) -> Row:
    """A finished round."""
    kept = read_json(path)
    return Row(**kept | {k: tuple(kept[k]) for k in ("targets", "shuffled")})


def one_round(options: Options, seed: int, number: int) -> Row:
    """Run the product until this round is finished, then train and judge the other arms from the same incumbent."""
    context = finish(options, seed, number)
    workspace = context.workspace
    plan = RoundPlan.read(workspace.round(number).plan)
    verdict = RoundResult.read(workspace.round(number).result).verdict
    targets = tuple(m.slice for m in plan.aimed)
    results = {
        INCUMBENT: load_results(workspace, steps.incumbent_round(context, plan), "candidate"),
        "targeted": load_results(workspace, number, "candidate"),
    }
    shuffled = other_targets(context, targets, seed + number)
    row = Row(
        seed=seed, round=number, targets=targets, shuffled=shuffled, verdict=verdict, failed=counts(context, results)
    )
    if not targets:
        return row
    results["none"] = load_results(workspace, number, "control")
    for arm, mix in other_mixes(context, plan, shuffled).items():
        results[arm] = train_arm(context, plan, arm, mix)
    written = "typography" in targets
    return replace(
        row,
        failed=counts(context, results),
        second=second_judge(context, plan) if written else {},
        unseen=unseen_words(context, plan, options) if number == 1 + options.rounds else {},
    )


def finish(options: Options, seed: int, rounds: int, without: str = "") -> Context:
    """Run the demo's world of this seed until `rounds` rounds are finished.

    without: prefix of files that are removed from the source.
    """
    folder = options.folder / (f"seed-{seed}-without-{without}" if without else f"seed-{seed}")
    source = folder / "source"
    if not (folder / "w").exists():
        write_world(source, seed=0 if options.shipped else seed, size=options.size)
        if without:
            remove(source, without)
    preset = str(preset_file(options))
    job = Job(str(folder / "w"), str(source), preset=preset, seed=seed, rounds=rounds, workers=1)
    run(job, progress=Progress())
    return Context(Workspace(job.workspace), job, load_preset(preset), Progress())


def remove(source: Path, prefix: str) -> None:
    """Remove the files of this prefix, and their captions, from a world."""
    for path in source.glob(f"{prefix}*"):
        path.unlink()
    lines = (source / "captions.jsonl").read_text().splitlines()
    kept = [line for line in lines if not json.loads(line)["file"].startswith(prefix)]
    write_bytes(source / "captions.jsonl", ("\n".join(kept) + "\n").encode())


def preset_file(options: Options) -> Path:
    """The demo's preset with the experiment's numbers, and without RL and distillation."""
    text = (resources.files("flywheel.presets") / "demo.toml").read_text("utf-8")
    suite = "demo" if options.size == "full" else "demo-quick"
    if options.shipped:
        suite = str(write_suite(options.folder / "suite", seed=0, size=options.size))
        text = text.replace("[training]\n", f"[training]\nstart = {json.dumps(str(FOLDER))}\n", 1)
    numbers = {
        "suite": json.dumps(suite),
        "base_steps": options.base_steps,
        "round_steps": options.round_steps,
        "samples": options.samples,
        "pictures": options.pictures,
        "seeds": options.probes,
        "updates": 0,
    }
    for key, value in numbers.items():
        text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
    path = options.folder / "gain.toml"
    write_bytes(path, text.encode())
    return path


# Arms ----------------------------------------------------------------------------------------------------------------
def taught(context: Context) -> list[str]:
    """Capabilities of the suite that the demo has a recipe for."""
    return sorted({c["capability"] for p in context.suite for c in p.checks} & RECIPES.keys())


def other_targets(context: Context, targets: Sequence[str], seed: int) -> tuple[str, ...]:
    """As many capabilities as `targets`, none of them among these, drawn at random."""
    free = [c for c in taught(context) if c not in targets]
    return tuple(random.Random(f"shuffled/{seed}").sample(free, min(len(targets), len(free))))


def other_mixes(context: Context, plan: RoundPlan, shuffled: Sequence[str]) -> dict[str, list[MixEntry]]:
    """What each other arm asks for: the samples and the share of batches of the plan's requests, spread differently."""
    every = taught(context)
    asked = [(m.samples or 0) for m in plan.aimed]
    return {
        "balanced": spread(plan, dict.fromkeys(every, 1.0), "evenly over the capabilities"),
        "shuffled": spread(plan, dict(zip(shuffled, asked)), "the plan's amounts for other capabilities"),
        "proportional": spread(plan, pool_of(context), "in the proportions of the pool"),
    }


def pool_of(context: Context) -> dict[str, float]:
    """{capability: pictures in the demo's world}."""
    amounts = AMOUNTS["full" if len(context.suite) > 4 * PROMPTS["quick"] else "quick"]
    pool = dict.fromkeys(SHAPES, amounts.singles / 3)
    pool |= {"count": amounts.groups, "typography": amounts.words}
    return pool | {"editing": amounts.recolours + amounts.moves, "identity": amounts.keeps}


def spread(plan: RoundPlan, weights: dict[str, float], why: str) -> list[MixEntry]:
    """The requests' samples and share of batches, in proportion to the weights."""
    total, share = sum(m.samples or 0 for m in plan.aimed), sum(m.share for m in plan.aimed)
    every = sum(weights.values())
    return [
        MixEntry(slice=c, samples=samples, share=share * n / every, reason=why)
        for c, n in weights.items()
        if (samples := round(total * n / every))
    ]


def train_arm(context: Context, plan: RoundPlan, arm: str, mix: Sequence[MixEntry]) -> Results:
    """Make the arm's samples with the product's own engines, train as long as the candidate, and judge the suite."""
    from training.worker import TrainingRun, train_all

    number, workspace = plan.round, context.workspace
    folder = workspace.path("arms", f"round-{number:04d}-{arm}")
    kept = tuple(m for m in plan.mix if m not in plan.aimed)
    fresh = plan.seed + ARM_SEED  # what the round rehearses, and its samples, come from the plan's own seed
    changed = replace(plan, mix=(*(m for m in kept if m not in plan.requests), *mix), seed=fresh)
    rows = data.collect(folder, changed, [], data.BasePool(context.manifest(plan), context.held_out, context.preset))
    accepted = (Slot(1, "accepted", "auto-approve"),)
    items = {
        (r["capability"], r["sample_id"]): Item(
            "", number, r["capability"], r["sample_id"], 0.0, r["caption"], {}, accepted
        )
        for r in rows
    }
    data.shard(folder, changed, context.held_out, items)
    trained = sources(context.workspace, replace(plan, mix=kept))
    trained += [{"manifest": str(folder / "manifest.json"), "slice": m.slice, "share": m.share} for m in mix]
    run_ = TrainingRun(
        out_dir=str(workspace.round(number).checkpoint(arm)),
        sources=trained,
        recipe=plan.recipe,
        init=str(workspace.path(plan.incumbent)) if plan.incumbent else None,
        seed=plan.seed + number,
        steps=plan.steps,
    )
    train_all([run_], threads=context.preset.threads, progress=context.progress)
    return judge(context, plan, arm, context.suite, arm)


def judge(context: Context, plan: RoundPlan, arm: str, suite: Sequence[Prompt], name: str) -> Results:
    """Draw a suite with an arm's checkpoint, as often as the round draws, and judge it."""
    checkpoint = checkpoint_of(context, plan, arm)
    return evaluation.evaluate(
        context.workspace,
        suite,
        open_generator(describe(checkpoint)),
        context.workspace.relative(checkpoint),
        round_=plan.round,
        arm=name,
        settings=context.preset.evaluation,
        seed=plan.seed,
        progress=context.progress,
    )


def checkpoint_of(context: Context, plan: RoundPlan, arm: str) -> Path:
    """The checkpoint that an arm, or the incumbent, draws with."""
    if arm == INCUMBENT:
        return context.workspace.path(str(plan.incumbent))
    return context.workspace.round(plan.round).checkpoint(RUN_ARMS.get(arm, arm)) / "final"


def counts(context: Context, results: dict[str, Results]) -> Counts:
    """{arm: {capability: (failures, prompts)}}; a prompt fails by the share of its pictures that do."""
    return {arm: tally((c, share) for (_, c), share in shares.items()) for arm, shares in results.items()}


def tally(shares: Iterable[tuple[str, float]]) -> dict[str, tuple[float, float]]:
    """{capability: (failures, prompts)} of (capability, share of pictures that pass)."""
    out: dict[str, tuple[float, float]] = {}
    for capability, share in shares:
        failures, prompts = out.get(capability, (0.0, 0.0))
        out[capability] = (failures + 1 - share, prompts + 1)
    return out


# Words that nobody teaches, and a judge that admitted nothing ---------------------------------------------------------
def unseen_words(context: Context, plan: RoundPlan, options: Options) -> Counts:
    """Every arm's typography on words that no picture of the pool and no remedy shows."""
    assert not set(UNSEEN) & set(WORDS)
    rng = random.Random(0)
    cards = [Word(w, c, rng.choice(list(BACKGROUNDS))) for w in UNSEEN for c in rng.sample(list(INKS), 2)]
    rows = [
        {"prompt_id": f"unseen-{n:02d}", "prompt": word_caption(card, rng), "task": "t2i", "checks": word_checks(card)}
        for n, card in enumerate(cards)
    ]
    suite = load_suite(write_rows(options.folder / "unseen.jsonl", rows))
    out = {}
    for arm in (INCUMBENT, *ARMS):
        results = judge(context, plan, arm, suite, f"{arm}-unseen")
        out[arm] = tally((c, share) for (_, c), share in results.items() if c == "typography")
    return out


def second_judge(context: Context, plan: RoundPlan) -> Counts:
    """Every arm's typography as Tesseract reads it: the word, and no other. Empty where it is not installed."""
    if not shutil.which("tesseract"):
        return {}
    words = {p.prompt_id: c["text"] for p in context.suite for c in p.checks if c["capability"] == "typography"}
    round_of = {INCUMBENT: (steps.incumbent_round(context, plan), "candidate")}
    out = {}
    for arm in (INCUMBENT, *ARMS):
        number, name = round_of.get(arm, (plan.round, RUN_ARMS.get(arm, arm)))
        folder = context.workspace.round(number).samples(name)
        seeds = [folder, *(folder / f"seed-{k}" for k in range(1, context.preset.evaluation.pictures))]
        out[arm] = tally(
            ("typography", sum(tesseract(f / picture_name(p)) == word for f in seeds) / len(seeds))
            for p, word in words.items()
        )
    return out


def tesseract(path: Path) -> str:
    """The letters that Tesseract reads in a picture of one word, in capitals."""
    with Image.open(path) as picture:
        enlarged = picture.convert("L").resize((ENLARGED, ENLARGED), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    enlarged.save(buffer, "PNG")
    command = ["tesseract", "stdin", "stdout", "--psm", "8", "-l", "eng"]
    read = subprocess.run(command, input=buffer.getvalue(), capture_output=True, check=True).stdout.decode()
    return "".join(letter for letter in read.upper() if letter.isalpha())
