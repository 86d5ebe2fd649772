"""Case routing: a round's failures become cases, each with a capability, a remedy track and the evidence for both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing

from flywheel.cases.attribution import affordable, batches, probe
from flywheel.cases.events import Case, detect, load_cases, retest
from flywheel.cases.fold import connect
from flywheel.cases.stored import gather, routed
from flywheel.core.files import digest
from flywheel.core.ledger import Ledger
from flywheel.core.records import System
from flywheel.core.workspace import Workspace
from flywheel.presets import Preset
from flywheel.remedies.enhancer import load_enhancer
from flywheel.remedies.index import CaptionIndex
from flywheel.rounds import systems
from flywheel.signals.evaluation import Verifiers
from flywheel.signals.results import load_results, load_signals
from flywheel.signals.suite import Prompt


def record_retest(workspace: Workspace, round_: int) -> None:
    """Record whether known cases pass with a promoted candidate: cases describe the incumbent."""
    results = load_results(workspace, round_, "candidate")
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
    progress: Callable[..., None] | None = None,
) -> None:
    """Route every open case without a sure track, once per round; signals from outside of rounds become cases first.

    system: draws the probes; captions: returns (sample_id, caption) of the pool, called only if prompts are probed.
    """
    ledger = Ledger(workspace, "case_events")
    if not ledger.has(f"route/{round_}"):
        gather(workspace, round_=round_)
        unrouted = [c for c in load_cases(workspace).values() if c.is_open and c.track in (None, "unsure")]
        experiment(
            workspace, unrouted, suite, system, captions, round_=round_, preset=preset, seed=seed, progress=progress
        )
        with closing(connect(workspace, ("probes", "signals"))) as con:
            events = routed(con, preset.attribution, round_)
        ledger.append(events, key=f"route/{round_}")


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
    progress: Callable[..., None] | None = None,
) -> None:
    """Probe the prompts of the cases, fewest seeds so far first, within the round's budget; store the probes.

    A case whose prompt is not in the suite has no checks to probe with: it waits for stored evidence.
    """
    probes, settings = Ledger(workspace, "probes"), preset.attribution
    seeds: Counter[str] = Counter()
    for row in probes.rows():
        if row["round"] < round_:
            seeds[row["prompt_id"]] += row["seeds"] or 0
    case_ids = {(c.prompt_id, c.capability): c.case_id for c in cases}
    failing = {c.prompt_id for c in cases}
    prompts = sorted((p for p in suite if p.prompt_id in failing), key=lambda p: seeds[p.prompt_id])
    pending = {
        key: batch
        for batch in batches(affordable(prompts, settings))
        if not probes.has(key := f"probe/{round_}/{digest([p.prompt_id for p in batch])[:32]}")
    }
    if pending:
        index, by = CaptionIndex.build(captions(), folder=workspace.vectors), Verifiers.of(workspace, preset.evaluation)
        enhance = load_enhancer(preset.enhancer, workspace.path("enhanced"))
        drawn = systems.rewriter(workspace, system)
    folder = workspace.round(round_).probes
    shared = {
        "round": round_,
        "checkpoint": system.checkpoint,
        "folder": str(folder.relative_to(workspace.root)),
    }
    for key, batch in pending.items():
        rows = probe(
            batch,
            workspace.path(system.checkpoint),
            folder,
            enhance=enhance,
            drawn=drawn,
            density=lambda texts: index.density(texts, settings.neighbours).tolist(),
            evaluation=systems.evaluation(system, preset.evaluation),
            settings=settings,
            seed=seed,
            by=by,
            progress=progress,
        )
        named = [
            row | shared | {"case_id": case, "probe_id": digest("probe", case, shared["checkpoint"], round_)[:32]}
            for row in rows
            if (case := case_ids.get((row["prompt_id"], row["capability"])))
        ]
        probes.append(named, key=key)
