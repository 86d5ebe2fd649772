"""Case routing: failures of a round become cases, each with a capability, a remedy track and the evidence for both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from flywheel.cases.attribution import affordable, batches, probe, probe_id
from flywheel.cases.events import Case, detect, load_cases, retest
from flywheel.cases.fold import connect
from flywheel.cases.stored import gather, routed
from flywheel.core.files import digest
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.presets import Preset
from flywheel.remedies.enhancer import load_enhancer
from flywheel.remedies.index import CaptionIndex
from flywheel.signals.evaluation import Verifiers
from flywheel.signals.results import load_results, load_signals
from flywheel.signals.suite import Prompt


def record_retest(workspace: Workspace, round_: int) -> None:
    """Move known cases by the results of a promoted candidate: cases describe the incumbent."""
    seen = load_results(workspace, round_, "candidate")
    Ledger(workspace, "case_events").append(retest(seen, load_cases(workspace), round_), key=f"retest/{round_}")


def record_detected(workspace: Workspace, round_: int) -> None:
    """Open a case for each new failure of the round's candidate."""
    rows = detect(load_signals(workspace, round_, "candidate"), load_cases(workspace), round_)
    Ledger(workspace, "case_events").append(rows, key=f"detect/{round_}")


def route(
    workspace: Workspace,
    suite: Sequence[Prompt],
    checkpoint: Path,
    captions: Callable[[], Sequence[tuple[str, str]]],
    *,
    round_: int,
    preset: Preset,
    seed: int,
    progress: Callable[..., None] | None = None,
) -> list[Case]:
    """Gather what came from outside of rounds, and attribute every open case without a sure track.

    Returns the open cases. `captions` lists (sample_id, caption) of the pool.
    """
    ledger = Ledger(workspace, "case_events")
    if not ledger.has(f"route/{round_}"):
        gather(workspace, round_=round_)
        unrouted = [c for c in load_cases(workspace).values() if c.is_open and c.track in (None, "unsure")]
        experiment(
            workspace, unrouted, suite, checkpoint, captions, round_=round_, preset=preset, seed=seed, progress=progress
        )
        with closing(connect(workspace, ("probes", "signals"))) as con:
            events = routed(con, preset.attribution, round_)
        ledger.append(events, key=f"route/{round_}")
    return [c for c in load_cases(workspace).values() if c.is_open]


def experiment(
    workspace: Workspace,
    cases: Sequence[Case],
    suite: Sequence[Prompt],
    checkpoint: Path,
    captions: Callable[[], Sequence[tuple[str, str]]],
    *,
    round_: int,
    preset: Preset,
    seed: int,
    progress: Callable[..., None] | None = None,
) -> None:
    """Probe the cases' prompts as far as the round's budget goes, those tried least first, and store what was seen.

    A prompt outside of the suite has no checks to probe with: its case waits for stored evidence.
    """
    probes = Ledger(workspace, "probes")
    before: dict[str, int] = {}
    for row in probes.rows():
        if row["round"] < round_:
            before[row["prompt_id"]] = before.get(row["prompt_id"], 0) + (row["seeds"] or 0)
    failing = {c.prompt_id for c in cases}
    tried_least = sorted((p for p in suite if p.prompt_id in failing), key=lambda p: before.get(p.prompt_id, 0))
    wanted = affordable(tried_least, preset.attribution)
    if not wanted:
        return
    index, by = CaptionIndex.build(captions()), Verifiers.of(workspace, preset.evaluation)
    enhance = load_enhancer(preset.enhancer, workspace.path("enhanced"))
    known = {(c.prompt_id, c.capability): c.case_id for c in cases}
    name = str(checkpoint.relative_to(workspace.root))
    folder = workspace.round(round_).probes
    for batch in batches(wanted):
        key = f"probe/{round_}/{digest([p.prompt_id for p in batch])[:32]}"
        if probes.has(key):
            continue
        found = probe(
            batch,
            checkpoint,
            folder,
            enhance=enhance,
            density=lambda texts: index.density(texts, preset.attribution.neighbours),
            evaluation=preset.evaluation,
            settings=preset.attribution,
            seed=seed,
            by=by,
            progress=progress,
        )
        rows = [
            row
            | {"case_id": case, "probe_id": probe_id(case, name, round_), "round": round_, "checkpoint": name}
            | {"folder": str(folder.relative_to(workspace.root))}
            for row in found
            if (case := known.get((row["prompt_id"], row["capability"])))
        ]
        probes.append(rows, key=key)
