"""The plan of a round: routed cases become a data quota, each share with its reason. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields

from flywheel.cases.events import Case
from flywheel.core.records import BASE, MixEntry, Pins, RoundPlan
from flywheel.presets import Preset


def make_plan(
    cases: Sequence[Case],
    pins: Pins,
    earlier: Sequence[RoundPlan] = (),
    *,
    round_: int,
    preset: Preset,
) -> RoundPlan:
    """What the round trains on, for how long and why, for the open cases.

    `earlier`: plans of the promoted rounds that lead to the incumbent. Their remedy data keeps `kept_share` of the
    rows, so that a round does not forget what the rounds before it repaired. Of the rest, capabilities with most open
    cases on the served tracks share `remedy_share` in proportion to their cases, and the base pool gets what is left.
    """
    settings, incumbent = preset.plan, pins.incumbent
    served = [c for c in cases if c.track in settings.tracks]
    counts = Counter(c.capability for c in served)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    targets = [(c, n) for c, n in ranked if n >= settings.min_cases][: settings.max_targets] if incumbent else []
    total = sum(n for _, n in targets)
    kept = _kept(earlier, settings.kept_share)
    free = 1 - sum(m.share for m in kept)
    mix = [
        MixEntry(
            slice=capability,
            share=round(free * settings.remedy_share * n / total, 6),
            samples=round(settings.samples * n / total),
            cases=n,
            reason=f"{n} open cases: {_by_track(served, capability)}",
        )
        for capability, n in targets
    ]
    base = round(1 - sum(m.share for m in [*kept, *mix]), 6)
    why = "keeps what the model can do" if mix else "no open case on a served track: the whole pool"
    waiting = Counter(c.track or "unrouted" for c in cases if c.track not in settings.tracks)
    return RoundPlan(
        **{f.name: getattr(pins, f.name) for f in fields(Pins)},
        round=round_,
        recipe=dict(preset.training.recipe),
        steps=preset.training.round_steps if incumbent else preset.training.base_steps,
        targets=tuple(c for c, _ in targets),
        cases=tuple(sorted(c.case_id for c in served if c.capability in dict(targets))),
        cases_open=len(cases),
        waiting=dict(sorted(waiting.items())),
        mix=(MixEntry(slice=BASE, share=base, reason=why), *kept, *mix),
    )


def _kept(earlier: Sequence[RoundPlan], share: float) -> list[MixEntry]:
    """Entries for the remedy data of earlier rounds, in proportion to the shares that it had in them."""
    parts = [(p.round, m) for p in earlier for m in p.requests]
    total = sum(m.share for _, m in parts)
    why = "keeps what round {} repaired".format
    return [MixEntry(slice=m.slice, round=n, share=round(share * m.share / total, 6), reason=why(n)) for n, m in parts]


def _by_track(cases: Sequence[Case], capability: str) -> str:
    tracks = Counter(c.track for c in cases if c.capability == capability)
    return ", ".join(f"{n} routed to {track}" for track, n in sorted(tracks.items()))
