"""Inputs of the tracks that data does not serve: an RL run's rewards and prompts, the enhancer's training set."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from flywheel.cases.events import Case, case_id, load_cases
from flywheel.core.files import read_json
from flywheel.core.records import RoundPlan, RoundResult
from flywheel.remedies import enhancer_data as enhancer
from flywheel.remedies import reward_policy
from flywheel.remedies.index import CaptionIndex
from flywheel.remedies.reinforce import missing_rewards
from flywheel.remedies.retrieval import captions, nearest
from flywheel.rounds import promotion
from flywheel.rounds.context import Context
from flywheel.rounds.tracks import scorer_options
from flywheel.signals.results import load_signals


def advise(run: Context, plan: RoundPlan) -> None:
    """Write the inputs of the round's RL run and enhancer training, for the cases that the plan serves by them.

    Where the plan leaves one out, they are for all open cases on its track: to train by hand. Finished work is kept.
    """
    folder = run.workspace.round(plan.round).remedies
    known_cases = load_cases(run.workspace)

    def cases_of(track: str, kind: str) -> list[Case]:
        served = [known_cases[c] for c in plan.remedy(track, kind).case_ids]
        return served or [c for c in known_cases.values() if c.is_open and c.track == track]

    rl, prompts = cases_of("rl", "grpo"), cases_of("prompt_enhancement", "sft")
    known = captions(run.manifest(plan)) if rl or prompts else []
    if rl and not (folder / "rl" / "rewards.json").exists():
        _advise_rl(run, plan, rl, known)
    if prompts:
        routed = [e for e in run.rows("case_events") if e["kind"] == "routed"]
        enhancer.write(
            folder / "enhancer",
            prompts,
            [text for _, text in known],
            run.held_out,
            {e["case_id"]: json.loads(e["evidence"]).get("enhanced") for e in routed},
            count=run.preset.enhancer.examples,
            seed=plan.seed + plan.round,
        )


def _advise_rl(run: Context, plan: RoundPlan, cases: Sequence[Case], known: Sequence[tuple[str, str]]) -> None:
    """Write reward weights and prompts for the RL cases; known: (sample_id, caption) of the pool."""
    failed: dict[str, set[str]] = {}
    for s in load_signals(run.workspace, promotion.require_incumbent(run.workspace).round, "candidate"):
        if s["passed"] is False:
            failed.setdefault(case_id(s["prompt_id"], s["capability"]), set()).add(s["verifier"])
    last = max(run.rows("rounds"), key=lambda r: r["round"])
    result = RoundResult.of(json.loads(last["result"]), f"round {last['round']}")
    scorers = scorer_options(run.preset.evaluation.scorers)
    missing = missing_rewards((reward_policy.reward_of(c["verifier"]) for p in run.suite for c in p.checks), scorers)
    for name, why in missing.items():
        run.progress.say(f"reward {name} is not available: {why}")
    judged = [replace(p, checks=tuple(_scored(p.checks, missing))) for p in run.suite]
    if not any(p.checks for p in judged):
        return
    rule = reward_policy.adjust(
        cases,
        judged,
        failed,
        settings=run.preset.rewards,
        previous=_previous_rewards(run, plan.round),
        regressed=[line.check for line in result.gate if line.outcome == "regression"],
    )
    texts = dict(known)
    index = cache(
        lambda: CaptionIndex.build(known, folder=run.workspace.vectors)
    )  # needed only for capabilities without a generator

    def retrieved(capability: str, count: int) -> list[str]:
        own = [c for c in cases if c.capability == capability]
        hits = nearest(index(), own, run.preset.plan.retrieval_similarity)
        return [texts[h.sample_id] for h in hits[:count]]

    reward_policy.write(
        run.workspace.round(plan.round).remedies / "rl",
        rule,
        recipe=run.preset.rewards.recipe,
        pins={k: getattr(plan, k) for k in ("round", "incumbent", "checkpoint", "snapshot", "code", "seed")},
        suite=run.held_out,
        retrieved=retrieved,
        seed=plan.seed,
    )


def _scored(checks: Iterable[dict[str, Any]], missing: Collection[str]) -> list[dict[str, Any]]:
    """The checks whose reward can be computed."""
    return [c for c in checks if reward_policy.reward_of(c["verifier"]) not in missing]


def _previous_rewards(run: Context, number: int) -> dict[str, Any] | None:
    """What the RL remedy of the latest earlier round wrote; None if there is none."""
    paths = [run.workspace.round(n).remedies / "rl" / "rewards.json" for n in range(number - 1, 0, -1)]
    return next((read_json(p) for p in paths if p.exists()), None)
