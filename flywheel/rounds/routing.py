"""Case routing: a round's failures become cases, each with a capability, a remedy track and the evidence for both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from flywheel.cases.attribution import affordable, batches, probe
from flywheel.cases.events import Case, detect, event, load_cases, retest
from flywheel.cases.fold import connect
from flywheel.cases.prompts import case_prompts, questions
from flywheel.cases.stored import gather, routed
from flywheel.core.files import digest
from flywheel.core.ledger import Ledger
from flywheel.core.records import System
from flywheel.core.workspace import Workspace
from flywheel.presets import Attribution, Preset
from flywheel.remedies.enhancer import load_enhancer
from flywheel.remedies.index import CaptionIndex
from flywheel.remedies.named import Names
from flywheel.rounds import systems
from flywheel.signals.evaluation import evaluate
from flywheel.signals.results import load_results, load_signals
from flywheel.signals.suite import Prompt

CASES = "cases"  # arm of an evaluation: the prompts of cases that the suite does not judge
PATIENCE = 3  # rounds of experiments after which a case that is still unsure goes to a person


def evaluate_cases(
    workspace: Workspace,
    suite: Sequence[Prompt],
    system: System,
    *,
    round_: int,
    preset: Preset,
    seed: int,
    draw_workers: int | None = None,
    progress: Callable[..., None] | None = None,
) -> None:
    """Sample and judge the prompts of open, routed cases that the suite does not judge, with the promoted system.

    The gate never reads these results. The budget of attribution bounds their number, those opened first come first.
    """
    cases = [c for c in load_cases(workspace).values() if c.is_open and c.track not in (None, "unsure")]
    prompts = case_prompts(workspace, cases, suite, preset.evaluation).prompts[: preset.attribution.budget or None]
    if prompts:
        evaluate(
            workspace,
            prompts,
            systems.generator(workspace, system),
            system.checkpoint,
            round_=round_,
            arm=CASES,
            settings=systems.evaluation(system, preset.evaluation),
            rewritten=systems.rewritten(workspace, system, prompts, workspace.round(round_).samples(CASES)),
            must_draw=False,
            seed=seed,
            workers=systems.workers(workspace, system, draw_workers),
            progress=progress,
        )


def record_retest(workspace: Workspace, round_: int) -> None:
    """Record whether known cases pass with a promoted candidate: cases describe the incumbent."""
    results = {**load_results(workspace, round_, CASES), **load_results(workspace, round_, "candidate")}
    Ledger(workspace, "case_events").append(retest(results, load_cases(workspace), round_), key=f"retest/{round_}")


def record_detected(workspace: Workspace, round_: int) -> None:
    """Open a case for each new failure of the round's candidate."""
    rows = detect(load_signals(workspace, round_, "candidate"), load_cases(workspace), round_)
    Ledger(workspace, "case_events").append(rows, key=f"detect/{round_}")


def route(
    workspace: Workspace,
    suite: Sequence[Prompt],
    system: System,
    captions: Callable[[], Sequence[tuple[str, str]]],
    *,
    round_: int,
    preset: Preset,
    seed: int,
    draw_workers: int | None = None,
    progress: Callable[..., None] | None = None,
) -> None:
    """Route every open case without a sure track, once per round; signals from outside of rounds become cases first.

    system: draws the probes; captions: returns (sample_id, caption) of the pool, called only if prompts are probed.
    """
    ledger = Ledger(workspace, "case_events")
    if not ledger.has(f"route/{round_}"):
        gather(workspace, round_=round_)
        unrouted = [c for c in load_cases(workspace).values() if c.is_open and c.track != "human" and _undecided(c)]
        asked = case_prompts(workspace, unrouted, suite, preset.evaluation)
        experiment(
            workspace,
            [c for c in unrouted if c.track in (None, "unsure")],
            asked.with_suite(suite),
            system,
            captions,
            round_=round_,
            preset=preset,
            seed=seed,
            draw_workers=draw_workers,
            progress=progress,
        )
        with closing(connect(workspace, ("probes", "signals"))) as con:
            events = routed(con, preset.attribution, round_).to_pylist()
        for_people = _for_people(workspace, unrouted, events, asked.unjudged)
        evidence = questions(workspace, for_people, unrouted)
        rows = [e for e in events if e["case_id"] not in for_people]
        asked_of = [c for c in unrouted if c.case_id in evidence]
        rows += [event(c, round_, "routed", evidence[c.case_id], track="human") for c in asked_of]
        ledger.append(rows, key=f"route/{round_}")


def _undecided(case: Case) -> bool:
    """A case without a sure track, or one that a remedy was made for: the latter may have no way to be re-tested."""
    return case.track in (None, "unsure") or case.status == "remedied"


def _for_people(
    workspace: Workspace, cases: Sequence[Case], events: Sequence[Mapping[str, Any]], unjudged: Mapping[str, str]
) -> dict[str, str]:
    """{id of a case that experiments cannot bring further: why}.

    Without a check, that is a case that stored evidence does not route, or whose remedy no re-test can follow; with
    one, a case that stays unsure, for example because its judge never answers.
    """
    tracks = {e["case_id"]: e["track"] for e in events}
    tried = Counter(row["case_id"] for row in Ledger(workspace, "probes").rows())
    out = {}
    for case in cases:
        unsure = tracks.get(case.case_id, case.track) in (None, "unsure")
        if why := unjudged.get(case.case_id):
            if unsure or case.status == "remedied":
                out[case.case_id] = why
        elif unsure and tried[case.case_id] >= PATIENCE:
            out[case.case_id] = f"still unsure after experiments in {tried[case.case_id]} rounds"
    return out


def experiment(
    workspace: Workspace,
    cases: Sequence[Case],
    suite: Sequence[Prompt],
    system: System,
    captions: Callable[[], Sequence[tuple[str, str]]],
    *,
    round_: int,
    preset: Preset,
    seed: int,
    draw_workers: int | None = None,
    progress: Callable[..., None] | None = None,
) -> None:
    """Probe the prompts of the cases, fewest seeds so far first, within the round's budget; store the probes.

    suite: the prompts of these cases, with their checks, and possibly others.
    """
    probes, settings = Ledger(workspace, "probes"), preset.attribution
    case_ids = {(c.prompt_id, c.capability): c.case_id for c in cases}
    failing = {c.prompt_id for c in cases}
    pending = _not_probed(probes, [p for p in suite if p.prompt_id in failing], settings, round_)
    if pending:
        pool = captions()
        index, names = CaptionIndex.build(pool, folder=workspace.vectors), Names([caption for _, caption in pool])
        enhance = load_enhancer(preset.enhancer, workspace.path("enhanced"))
        drawn, generator = systems.rewriter(workspace, system), systems.generator(workspace, system)
    folder = workspace.round(round_).probes
    shared = {
        "round": round_,
        "checkpoint": system.checkpoint,
        "folder": str(folder.relative_to(workspace.root)),
    }
    for key, batch in pending.items():
        rows = probe(
            batch,
            generator,
            folder,
            workspace=workspace,
            enhance=enhance,
            drawn=drawn,
            density=lambda texts: index.density(texts, settings.neighbours).tolist(),
            absent=names.absent,
            evaluation=systems.evaluation(system, preset.evaluation),
            settings=settings,
            seed=seed,
            workers=systems.workers(workspace, system, draw_workers),
            progress=progress,
        )
        named = [
            row | shared | {"case_id": case, "probe_id": digest("probe", case, shared["checkpoint"], round_)[:32]}
            for row in rows
            if (case := case_ids.get((row["prompt_id"], row["capability"])))
        ]
        probes.append(named, key=key)


def _not_probed(
    probes: Ledger, prompts: Sequence[Prompt], settings: Attribution, round_: int
) -> dict[str, list[Prompt]]:
    """{key in the ledger: batch} of the prompts that this round's budget allows and that it has not probed yet."""
    seeds: Counter[str] = Counter()
    for row in probes.rows():
        if row["round"] < round_:
            seeds[row["prompt_id"]] += row["seeds"] or 0
    ordered = sorted(prompts, key=lambda p: seeds[p.prompt_id])
    return {
        key: batch
        for batch in batches(affordable(ordered, settings))
        if not probes.has(key := f"probe/{round_}/{digest([p.prompt_id for p in batch])[:32]}")
    }
