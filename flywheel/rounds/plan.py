"""The plan of a round: routed cases become a data quota, each share with its reason. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from flywheel.cases.events import Case
from flywheel.presets import Preset
from flywheel.remedies.data import asked


def make_plan(
    cases: Sequence[Case],
    pins: Mapping[str, Any],
    earlier: Sequence[Mapping[str, Any]] = (),
    *,
    round_: int,
    preset: Preset,
) -> dict[str, Any]:
    """What the round trains on, for how long and why, for the open cases; `pins` as in `flywheel.rounds.pins`.

    `earlier`: plans of the promoted rounds that lead to the incumbent. Their remedy data keeps `kept_share` of the
    rows, so that a round does not forget what the rounds before it repaired. Of the rest, capabilities with most open
    cases on the served tracks share `remedy_share` in proportion to their cases, and the base pool gets what is left.
    """
    settings, incumbent = preset.plan, pins["incumbent"]
    served = [c for c in cases if c.track in settings.tracks]
    counts = Counter(c.capability for c in served)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    targets = [(c, n) for c, n in ranked if n >= settings.min_cases][: settings.max_targets] if incumbent else []
    total = sum(n for _, n in targets)
    kept = _kept(earlier, settings.kept_share)
    free = 1 - sum(m["share"] for m in kept)
    mix = [
        {
            "slice": capability,
            "share": round(free * settings.remedy_share * n / total, 6),
            "samples": round(settings.samples * n / total),
            "cases": n,
            "reason": f"{n} open cases: {_by_track(served, capability)}",
        }
        for capability, n in targets
    ]
    base = round(1 - sum(m["share"] for m in [*kept, *mix]), 6)
    why = "keeps what the model can do" if mix else "no open case on a served track: the whole pool"
    waiting = Counter(c.track or "unrouted" for c in cases if c.track not in settings.tracks)
    return {
        **pins,
        "round": round_,
        "recipe": dict(preset.training.recipe),
        "steps": preset.training.round_steps if incumbent else preset.training.base_steps,
        "targets": [c for c, _ in targets],
        "cases": sorted(c.case_id for c in served if c.capability in dict(targets)),
        "cases_open": len(cases),
        "waiting": dict(sorted(waiting.items())),
        "mix": [{"slice": "base", "share": base, "reason": why}, *kept, *mix],
    }


def _kept(earlier: Sequence[Mapping[str, Any]], share: float) -> list[dict[str, Any]]:
    """Entries for the remedy data of earlier rounds, in proportion to the shares that it had in them."""
    parts = [(p["round"], m["slice"], m["share"]) for p in earlier for m in asked(p)]
    total = sum(x for *_, x in parts)
    return [
        {"slice": c, "round": n, "share": round(share * x / total, 6), "reason": f"keeps what round {n} repaired"}
        for n, c, x in parts
    ]


def _by_track(cases: Sequence[Case], capability: str) -> str:
    tracks = Counter(c.track for c in cases if c.capability == capability)
    return ", ".join(f"{n} routed to {track}" for track, n in sorted(tracks.items()))
