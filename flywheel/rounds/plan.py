"""The plan of a round: routed cases become data quotas, each with its reason. Pure."""

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
    """What the round trains on, for how long and why, given the open cases.

    earlier: plans of the promoted rounds that lead to the incumbent. Their remedy data keeps `kept_share` of the rows,
    in proportion to the shares that it had, so that a round does not forget earlier repairs. Of the rest, the
    capabilities with most open cases on the served tracks share `remedy_share` in proportion to their cases, and the
    base pool gets what is left.
    """
    settings, incumbent = preset.plan, pins.incumbent
    served = [c for c in cases if c.track in settings.tracks]
    waiting = Counter(c.track or "unrouted" for c in cases if c.track not in settings.tracks)
    ranked = sorted(Counter(c.capability for c in served).items(), key=lambda item: (-item[1], item[0]))
    targets = [(c, n) for c, n in ranked if n >= settings.min_cases][: settings.max_targets] if incumbent else []
    remedies = [(p.round, m) for p in earlier for m in p.requests]
    before = sum(m.share for _, m in remedies)
    kept = [
        MixEntry(
            slice=m.slice,
            round=number,
            share=round(settings.kept_share * m.share / before, 6),
            reason=f"keeps what round {number} repaired",
        )
        for number, m in remedies
    ]
    total, free = sum(n for _, n in targets), 1 - sum(m.share for m in kept)
    routed = sorted(Counter((c.capability, c.track) for c in served).items())
    mix = [
        MixEntry(
            slice=capability,
            share=round(free * settings.remedy_share * n / total, 6),
            samples=round(settings.samples * n / total),
            cases=n,
            reason=f"{n} open cases: " + ", ".join(f"{m} routed to {t}" for (c, t), m in routed if c == capability),
        )
        for capability, n in targets
    ]
    base = round(1 - sum(m.share for m in [*kept, *mix]), 6)
    why = "keeps what the model can do" if mix else "no open case on a served track: the whole pool"
    return RoundPlan(
        **{f.name: getattr(pins, f.name) for f in fields(Pins)},
        round=round_,
        recipe=preset.training.recipe_of(later=incumbent is not None),
        steps=preset.training.round_steps if incumbent else preset.training.base_steps,
        targets=tuple(c for c, _ in targets),
        cases=tuple(sorted(c.case_id for c in served if c.capability in dict(targets))),
        cases_open=len(cases),
        waiting=dict(sorted(waiting.items())),
        mix=(MixEntry(slice=BASE, share=base, reason=why), *kept, *mix),
    )
