"""The plan of a round: a case's track decides its remedy, and each remedy gets its quota and its reason. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from flywheel.cases.events import Case
from flywheel.core.records import BASE, MixEntry, Pins, Remedy, RoundPlan
from flywheel.presets import Preset

LEAST = 0.25  # weight of a case where the pool is just sparse enough for more data; where it is empty, 1
ASKED = "look at the pictures, then send the case to another track or dismiss it (`flywheel review case`)"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the plan depends on beside cases and settings.

    density: {case id: percentile of the pool's own density around its prompt}; judged: capabilities for which prompts
    with checks can be made; taught: capabilities of the suite for which samples can be made; unseen: the snapshot has
    data that the incumbent was not trained on; generator: kind of the incumbent, which only as a checkpoint can be
    reinforced and distilled here.
    """

    density: Mapping[str, float] = field(default_factory=dict)
    judged: Collection[str] = ()
    taught: Collection[str] = ()
    unseen: bool = False
    generator: str = "checkpoint"


def make_plan(
    cases: Sequence[Case],
    pins: Pins,
    earlier: Sequence[RoundPlan] = (),
    *,
    round_: int,
    preset: Preset,
    known: Known = Known(),
    incumbent_round: int | None = None,
) -> RoundPlan:
    """What the round does, for how long and why, given the open cases.

    earlier: plans of the promoted rounds that lead to the incumbent. Their remedy data keeps `kept_share` of the rows,
    in proportion to the shares that it had, so that a round does not forget earlier repairs. If one of them was given a
    checkpoint, what that was trained on is not here: fresh samples then rehearse each taught capability that neither
    they nor this round serve, and these capabilities divide `kept_share` with the kept ones. Of the rest, the
    pre-training capabilities with most cases in sparse parts of the pool share `remedy_share` in proportion to their
    scarcity, and the base pool gets what is left.
    """
    of = {track: [c for c in cases if c.track == track] for track in {c.track for c in cases}}
    trained = pins.incumbent is not None
    start = known.generator if trained else str(preset.generator.get("kind", "checkpoint"))
    foreign = f"the incumbent is of kind {start}" if start != "checkpoint" else ""
    foreign = foreign or ("trainer.command makes the candidate" if preset.trainer.command else "")
    rl = _rl(of.get("rl", []), preset, known, trained, foreign)
    sft, grpo = _enhancer(of.get("prompt_enhancement", []), preset, trained)
    human = of.get("human", [])
    asked = f"{len(human)} open cases: {ASKED}" if human else "no open case needs a person"
    review = _serving(Remedy(track="human", kind="review", samples=len(human), reason=asked), human)
    others = bool(rl.updates or sft.updates)
    mix, data = _data_or_none(of.get("pretraining", []), earlier, preset, known, trained, others=others)
    remedies = (data, rl, sft, grpo, review, _distil(preset, foreign))
    served = {c for r in (data, rl, sft) for c in r.case_ids}
    waiting = Counter(c.track or "unrouted" for c in cases if c.case_id not in served)
    return RoundPlan(
        **{f.name: getattr(pins, f.name) for f in fields(Pins)},
        round=round_,
        recipe=_recipe(preset, trained),
        steps=data.updates or 0,
        targets=tuple(dict.fromkeys(t for r in (data, rl, sft) for t in r.targets)),
        cases=tuple(sorted(served)),
        cases_open=len(cases),
        waiting=dict(sorted(waiting.items())),
        mix=mix,
        remedies=remedies,
        incumbent_round=incumbent_round,
    )


def _recipe(preset: Preset, trained: bool) -> dict[str, Any]:
    """What trains the data phase: a recipe of ours, or a command."""
    trainer = preset.trainer
    if trainer.command:
        return {"command": trainer.command, "data": trainer.data, "samples": trainer.samples}
    return preset.training.recipe_of(later=trained)


def _data_or_none(
    cases: Sequence[Case],
    earlier: Sequence[RoundPlan],
    preset: Preset,
    known: Known,
    trained: bool,
    *,
    others: bool,
) -> tuple[tuple[MixEntry, ...], Remedy]:
    """As `_data`; an empty phase where the first candidate is given, or nothing here can train the incumbent."""
    empty = Remedy(track="pretraining", kind="data", samples=0, updates=0, reason="")
    if not trained and preset.generator:
        return (), replace(empty, reason=f"the preset gives the first generator ({_named(preset)}): judged as it is")
    if trained and known.generator != "checkpoint" and not preset.trainer.command:
        waiting = f"; {len(cases)} open cases wait" if cases else ""
        why = f"not available: nothing here trains a generator of kind {known.generator}: set trainer.command"
        return (), replace(empty, reason=why + waiting)
    return _data(cases, earlier, preset, known, trained, others=others)


def _named(preset: Preset) -> str:
    about = preset.generator
    return " ".join(str(about[k]) for k in ("kind", "model", "folder") if about.get(k))


def _data(
    cases: Sequence[Case],
    earlier: Sequence[RoundPlan],
    preset: Preset,
    known: Known,
    trained: bool,
    *,
    others: bool,
) -> tuple[tuple[MixEntry, ...], Remedy]:
    """The mix of the data phase, and the remedy of the pre-training track; others: another remedy trains."""
    settings = preset.plan
    scarcity: dict[str, float] = {}
    for c in cases:
        near = known.density.get(c.case_id, 0.0)
        weight = max(LEAST, 1 - near / preset.attribution.sparse_percentile)
        scarcity[c.capability] = scarcity.get(c.capability, 0.0) + weight
    targets = _targets(cases, preset, scarcity) if trained else []
    if trained and not targets and not known.unseen and others:
        why = f"{_few(cases, preset)}, and the incumbent has seen the whole pool: the data phase is empty"
        return (), Remedy(track="pretraining", kind="data", samples=0, updates=0, reason=why)
    kept, rehearsed = _kept(earlier, targets, preset, known)
    total, free = sum(scarcity[c] for c in targets), 1 - sum(m.share for m in [*kept, *rehearsed])
    mix = []
    for capability in targets:
        own = [c for c in cases if c.capability == capability]
        densities = [known.density[c.case_id] for c in own if c.case_id in known.density]
        mean = sum(densities) / max(1, len(densities))
        dense = f", where the pool's density is at percentile {mean:.0f}" if densities else ""
        mix.append(
            MixEntry(
                slice=capability,
                share=round(free * settings.remedy_share * scarcity[capability] / total, 6),
                samples=round(settings.samples * scarcity[capability] / total),
                cases=len(own),
                reason=f"{len(own)} open cases: {len(own)} routed to pretraining{dense}",
            )
        )
    base = round(1 - sum(m.share for m in [*kept, *rehearsed, *mix]), 6)
    why = "keeps what the model can do" if mix else "no open case on the pre-training track: the whole pool"
    steps = preset.training.round_steps if trained else preset.training.base_steps
    served = [c for c in cases if c.capability in targets]
    reason = "; ".join(f"{m.slice}: {m.reason}" for m in mix) or (
        f"{_few(cases, preset)}: trains on the whole pool" if trained else "no incumbent yet: trains the first one"
    )
    remedy = Remedy(
        track="pretraining",
        kind="data",
        samples=sum(m.samples or 0 for m in [*rehearsed, *mix]),
        updates=steps,
        targets=tuple(targets),
        reason=reason,
    )
    return (MixEntry(slice=BASE, share=base, reason=why), *kept, *rehearsed, *mix), _serving(remedy, served)


def _kept(
    earlier: Sequence[RoundPlan], targets: Sequence[str], preset: Preset, known: Known
) -> tuple[list[MixEntry], list[MixEntry]]:
    """What shares `kept_share`: remedies of earlier promoted rounds, and what is rehearsed of a given checkpoint."""
    settings = preset.plan
    remedies = [(p.round, m) for p in earlier for m in p.requests]
    repaired = {m.slice for _, m in remedies}
    given = any(p.submitted for p in earlier) and settings.kept_share and settings.samples
    forgotten = sorted({*known.taught} - repaired - {*targets}) if given else []
    each = settings.kept_share / max(1, len(repaired) + len(forgotten))
    before = sum(m.share for _, m in remedies)
    kept = [
        MixEntry(
            slice=m.slice,
            round=number,
            share=round(each * len(repaired) * m.share / before, 6),
            reason=f"keeps what round {number} repaired",
        )
        for number, m in remedies
    ]
    as_often = (1 - settings.kept_share) * settings.remedy_share  # as a target's sample is seen
    samples = max(1, round(settings.samples * each / as_often)) if as_often else settings.samples
    why = "rehearsed: the checkpoint that the first round was given may have learned it elsewhere"
    return kept, [MixEntry(slice=c, share=round(each, 6), samples=samples, cases=0, reason=why) for c in forgotten]


def _rl(cases: Sequence[Case], preset: Preset, known: Known, trained: bool, foreign: str) -> Remedy:
    """The remedy of the RL track: one run for all its capabilities; foreign: why nothing here can reinforce."""
    empty = Remedy(track="rl", kind="grpo", prompts=0, updates=0, reason="")
    able = [c for c in cases if c.capability in known.judged]
    if not trained:
        return replace(empty, reason="no incumbent yet: there is no case to serve")
    if not cases:
        return replace(empty, reason="no open case on the track")
    if not preset.rewards.updates:
        return replace(empty, reason=f"left out by the preset (rewards.updates = 0): {len(cases)} open cases wait")
    if foreign:
        why = f"not available: RL trains checkpoints, {foreign}"
        return replace(empty, reason=f"{why}; {len(cases)} open cases wait")
    if not able:
        names = ", ".join(sorted({c.capability for c in cases}))
        return replace(empty, reason=f"not available: no prompts whose pictures can be judged for {names}")
    if len(able) < preset.plan.min_cases:
        return replace(empty, reason=f"{len(able)} open cases on the track, fewer than {preset.plan.min_cases}")
    counts = Counter(c.capability for c in able)
    targets = tuple(sorted(counts, key=lambda c: (-counts[c], c)))
    why = "; ".join(f"{t}: {counts[t]} open cases that some seeds pass" for t in targets)
    prompts, updates = preset.rewards.prompts, preset.rewards.updates
    return _serving(replace(empty, prompts=prompts, updates=updates, targets=targets, reason=why), able)


def _enhancer(cases: Sequence[Case], preset: Preset, trained: bool) -> tuple[Remedy, Remedy]:
    """SFT, then GRPO of the enhancer: the remedies of the prompt-enhancement track."""
    settings, waiting = preset.enhancer, f"{len(cases)} open cases wait"
    sft = Remedy(track="prompt_enhancement", kind="sft", prompts=0, updates=0, reason="")
    why = ""
    if not trained:
        why = "no incumbent yet: there is no case to serve"
    elif not cases:
        why = "no open case on the track"
    elif not settings.trainable:
        through = "to pass through it" if settings.draw else "and pass through it only with enhancer.draw"
        why = f"not available: no enhancer model, the backend is {settings.backend}; {waiting} {through}"
    elif not settings.sft_steps:
        why = f"left out by the preset (enhancer.sft_steps = 0): {waiting}"
    if why:
        return replace(sft, reason=why), replace(sft, kind="grpo", reason=why)
    about = f"{len(cases)} open cases that pass with a better prompt"
    targets = tuple(sorted({c.capability for c in cases}))
    sft = _serving(replace(sft, prompts=settings.examples, updates=settings.sft_steps, targets=targets), cases)
    after = f"{about}: rewards the rewrites of the model that SFT has trained"
    none = "left out by the preset (enhancer.grpo_steps = 0)"
    grpo = replace(
        sft,
        kind="grpo",
        prompts=settings.examples if settings.grpo_steps else 0,
        updates=settings.grpo_steps,
        reason=after if settings.grpo_steps else none,
    )
    return replace(sft, reason=f"{about}: trains {settings.backend}"), grpo


def _distil(preset: Preset, foreign: str) -> Remedy:
    settings = preset.distil
    if settings.updates and foreign:
        why = f"not available: distillation starts from checkpoints, {foreign}"
        return Remedy(kind="distil", updates=0, reason=why)
    if not settings.updates:
        return Remedy(kind="distil", updates=0, reason="left out by the preset (distil.updates = 0)")
    why = "the preset asks for a student, judged against the candidate that it is distilled from"
    return Remedy(kind="distil", prompts=settings.prompts, updates=settings.updates, reason=why)


def _targets(cases: Sequence[Case], preset: Preset, weight: Mapping[str, float]) -> list[str]:
    """Capabilities with enough cases, those with most weight first, as many as a round serves with data."""
    counts = Counter(c.capability for c in cases)
    ranked = sorted(counts, key=lambda c: (-weight[c], c))
    return [c for c in ranked if counts[c] >= preset.plan.min_cases][: preset.plan.max_targets]


def _few(cases: Sequence[Case], preset: Preset) -> str:
    few = f"no capability has {preset.plan.min_cases} open cases on the track, which has {len(cases)}"
    return few if cases else "no open case on the track"


def _serving(remedy: Remedy, cases: Sequence[Case]) -> Remedy:
    """The remedy with the cases that it serves."""
    return replace(remedy, cases=len(cases), case_ids=tuple(sorted(c.case_id for c in cases)))
