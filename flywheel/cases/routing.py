"""Case routing: failures of a round become cases, each with a capability, a remedy track and the evidence for both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from flywheel.cases.attribution import attribute, probe
from flywheel.cases.events import Case, detect, event, load_cases, retest
from flywheel.ledger import Ledger
from flywheel.preset import Preset
from flywheel.remedies.enhancer import enhance
from flywheel.remedies.index import CaptionIndex
from flywheel.signals.results import results
from flywheel.signals.suite import Prompt
from flywheel.workspace import Workspace


def record_retest(workspace: Workspace, round_: int) -> None:
    """Move known cases by the results of a promoted candidate: cases describe the incumbent."""
    seen = results(Ledger(workspace, "signals").rows(), round_, "candidate")
    Ledger(workspace, "case_events").append(retest(seen, load_cases(workspace), round_), key=f"retest/{round_}")


def record_detected(workspace: Workspace, round_: int) -> None:
    """Open a case for each new failure of the round's candidate."""
    rows = detect(Ledger(workspace, "signals").rows(), load_cases(workspace), round_)
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
    """Attribute every open case without a track; returns the open cases. `captions` lists (sample_id, caption)."""
    ledger = Ledger(workspace, "case_events")
    if not ledger.has(f"route/{round_}"):
        unrouted = [c for c in load_cases(workspace).values() if c.is_open and c.track is None]
        failing = {c.prompt_id for c in unrouted}
        index = CaptionIndex.build(captions()) if failing else None
        probes = probe(
            [p for p in suite if p.prompt_id in failing],
            checkpoint,
            workspace.path("probes", f"round-{round_:04d}"),
            enhance=enhance,
            density=lambda texts: index.density(texts, preset.attribution.neighbours),
            evaluation=preset.evaluation,
            settings=preset.attribution,
            seed=seed,
            progress=progress,
        )
        events = []
        for case in unrouted:
            found = probes[case.prompt_id, case.capability]
            track, reason = attribute(found, preset.attribution)
            events.append(event(case, round_, "routed", asdict(found) | {"reason": reason}, track=track))
        ledger.append(events, key=f"route/{round_}")
    return [c for c in load_cases(workspace).values() if c.is_open]
