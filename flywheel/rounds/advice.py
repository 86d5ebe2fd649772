"""What a round leaves for the tracks that data does not serve: reinforcement learning, the prompt enhancer."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from flywheel.cases.events import case_id, load_cases
from flywheel.core.files import read_json
from flywheel.core.records import RoundPlan, RoundResult
from flywheel.remedies import enhancer_data as enhancer
from flywheel.remedies import reward_policy
from flywheel.remedies.index import CaptionIndex
from flywheel.remedies.retrieval import captions, nearest
from flywheel.rounds import promotion
from flywheel.rounds.steps import Context
from flywheel.signals.results import load_signals


def advise(run: Context, plan: RoundPlan) -> None:
    """What the other tracks do next: reward weights and prompts of an RL run, the enhancer's training and test set."""
    number, folder = plan.round, run.workspace.round(plan.round).remedies
    cases = [c for c in load_cases(run.workspace).values() if c.is_open]
    by_track = {t: [c for c in cases if c.track == t] for t in ("rl", "prompt_enhancement")}
    known = captions(run.manifest(plan)) if any(by_track.values()) else []
    if by_track["rl"] and not (folder / "rl" / "rewards.json").exists():
        failed: dict[str, set[str]] = {}
        now = promotion.incumbent(run.workspace)
        for s in load_signals(run.workspace, now.round, "candidate"):
            if s["passed"] is False:
                failed.setdefault(case_id(s["prompt_id"], s["capability"]), set()).add(s["verifier"])
        last = max(run.rows("rounds"), key=lambda r: r["round"])
        result = RoundResult.of(json.loads(last["result"]), f"round {last['round']}")
        rule = reward_policy.adjust(
            by_track["rl"],
            run.suite,
            failed,
            settings=run.preset.rewards,
            previous=_previous_rewards(run, number),
            regressed=[line.check for line in result.gate if line.outcome == "regression"],
        )
        texts, index = dict(known), cache(lambda: CaptionIndex.build(known))  # built where no generator serves

        def retrieved(capability: str, count: int) -> list[str]:
            mine = [c for c in by_track["rl"] if c.capability == capability]
            hits = nearest(index(), mine, run.preset.plan.retrieval_similarity)
            return [texts[h.sample_id] for h in hits[:count]]

        pinned = {k: getattr(plan, k) for k in ("round", "incumbent", "checkpoint", "snapshot", "code", "seed")}
        reward_policy.write(
            folder / "rl",
            rule,
            base=run.preset.rewards.recipe,
            pins=pinned,
            suite=run.suite,
            retrieved=retrieved,
            seed=plan.seed,
        )
    if by_track["prompt_enhancement"]:
        routed = [e for e in run.rows("case_events") if e["kind"] == "routed"]
        enhancer.write(
            folder / "enhancer",
            by_track["prompt_enhancement"],
            [text for _, text in known],
            run.suite,
            {e["case_id"]: json.loads(e["evidence"]).get("enhanced") for e in routed},
            count=run.preset.enhancer.examples,
            seed=plan.seed + number,
        )


def _previous_rewards(run: Context, number: int) -> dict[str, Any] | None:
    paths = [run.workspace.round(n).remedies / "rl" / "rewards.json" for n in range(number - 1, 0, -1)]
    return next((read_json(p) for p in paths if p.exists()), None)
