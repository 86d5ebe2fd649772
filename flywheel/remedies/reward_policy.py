"""The RL remedy: reward weights, prompt mix and weights per category for the next RL run, by an explicit, logged rule.

The report adjusts weights and prompt mix "so that no single reward is over-optimised" but gives no rule (section 6);
this rule is ours. With V rewards, K capabilities, C open RL cases, and the settings' floor f:

1. pressure of a reward = its share of the failed checks of the RL cases (a check feeds the reward in `REWARD_OF`)
2. weight = f / V + (1 - f) * pressure
3. if a reward's weight rose last time, and a capability that it does not judge got worse at the gate, its weight is
   multiplied by `damping`; then all weights are scaled to sum 1
4. share of prompts of a capability = f / K + (1 - f) * its cases / C
5. weights of a category = `focus` on the rewards that judge it, in the ratio of their weights, the rest on the others
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flywheel.cases.events import Case
from flywheel.core.files import file_digest, write_bytes, write_json
from flywheel.presets import Rewards, recipe_of
from flywheel.remedies.held_out import HeldOut
from flywheel.signals.suite import Prompt, write_rows

# {verifier: the reward that its failures raise}, by the names of the RL recipe.
REWARD_OF = {"text": "ocr", "identity": "consistency", "unchanged": "consistency", "alignment": "alignment"}
INSTRUCTION = "instruction"  # the prompt's own checks: the reward of all other verifiers
EVERY = "*"  # the RL recipe's weights for categories without their own


def adjust(
    cases: Sequence[Case],
    suite: Sequence[Prompt],
    failed: Mapping[str, Collection[str]],
    *,
    settings: Rewards,
    previous: Mapping[str, Any] | None = None,
    regressed: Collection[str] = (),
) -> dict[str, Any]:
    """{"weights", "rose", "categories", "mix", "log"}: the outcome of the rule.

    weights: by reward, sum 1; rose: their changes; categories: weights by capability, each sum 1; mix: prompts by
    capability. cases: open RL cases; failed: {case id: verifiers that failed}; suite: shows which verifier judges which
    capability; previous: the last outcome; regressed: capabilities that got worse at the last gate.
    """
    judged = sorted({(c["capability"], reward_of(c["verifier"])) for p in suite for c in p.checks})
    rewards, capabilities = sorted({v for _, v in judged}), sorted({c for c, _ in judged})
    of = {c: [v for k, v in judged if k == c] for c in capabilities}
    log = []
    pressure = Counter(r for c in cases for v in failed.get(c.case_id, ()) if (r := reward_of(v)) in rewards)
    total = sum(pressure.values())
    raw = {}
    for v in rewards:
        share = pressure[v] / total if total else 1 / len(rewards)
        raw[v] = settings.floor / len(rewards) + (1 - settings.floor) * share
        log.append(f"{v}: {pressure[v]} of {total} failed checks of RL cases → weight {raw[v]:.3f}")
        rose = previous is not None and previous["rose"].get(v, 0) > 0
        others = [c for c in regressed if v not in of.get(c, ())]
        if rose and others:
            raw[v] *= settings.damping
            log.append(f"{v}: rose last time and {', '.join(sorted(others))} got worse → times {settings.damping:g}")
    weights = {v: w / sum(raw.values()) for v, w in raw.items()}
    counts = Counter(c.capability for c in cases if c.capability in of)
    open_ = sum(counts.values())
    shares = {
        c: settings.floor / len(capabilities)
        + (1 - settings.floor) * (counts[c] / open_ if open_ else 1 / len(capabilities))
        for c in capabilities
    }
    mix = _apportion(shares, settings.prompts)
    for c in capabilities:
        log.append(f"{c}: {counts[c]} of {open_} open RL cases → {mix[c]} of {settings.prompts} prompts")
    before = previous["weights"] if previous else {}
    return {
        "weights": weights,
        "rose": {v: w - before[v] if v in before else 0.0 for v, w in weights.items()},
        "categories": {c: _vector(weights, of[c], settings.focus) for c in capabilities},
        "mix": mix,
        "log": log,
    }


def write(
    folder: Path,
    rule: Mapping[str, Any],
    *,
    recipe: str | Mapping[str, Any],
    pins: Mapping[str, Any],
    suite: Sequence[Prompt],
    retrieved: Callable[[str, int], Sequence[str]],
    seed: int,
) -> Path:
    """Write the inputs of an RL run; returns the path of `rewards.json`: the rule's outcome, `pins`, and file digests.

    Beside it are `recipe.toml` (the preset's recipe with weights by category) and `prompts.jsonl` (in the suite's form,
    checks of the prompt's own capability first). retrieved(capability, count): captions of the pool near the cases, for
    capabilities without a generator. No prompt says or nearly says an evaluation prompt. Finished work is kept.
    """
    path = folder / "rewards.json"
    if path.exists():
        return path
    held_out, rows, log = HeldOut(p.text for p in suite), [], list(rule["log"])
    for capability, count in rule["mix"].items():
        prompts = list(_prompts(capability, count, folder, held_out, retrieved, seed)) if count else []
        if len(prompts) < count:
            log.append(f"{capability}: {len(prompts)} of {count} prompts found: no more whose picture can be judged")
        rows += prompts
    suite_file = write_rows(folder / "prompts.jsonl", rows)
    recipe_file = folder / "recipe.toml"
    write_bytes(recipe_file, recipe_toml(recipe, rule).encode())
    named = {"prompts": suite_file.name, "prompts_sha256": file_digest(suite_file)}
    named |= {"recipe": recipe_file.name, "recipe_sha256": file_digest(recipe_file)}
    write_json(path, {**pins, **rule, **named, "log": log})
    return path


def _prompts(
    capability: str,
    count: int,
    folder: Path,
    held_out: HeldOut,
    retrieved: Callable[[str, int], Sequence[str]],
    seed: int,
) -> Iterator[dict[str, Any]]:
    from curation.synthesis import generators
    from flywheel.remedies.prompts import fresh_prompts, prompt_row

    if capability in generators():
        yield from fresh_prompts(capability, count, folder, held_out, seed=f"{seed}/rl")
        return
    number = 0
    for caption in retrieved(capability, 4 * count):
        checks = text_checks(caption, capability)
        if checks and number < count and not held_out.near(caption):
            number += 1
            yield prompt_row(capability, number, caption, "t2i", checks)


def recipe_toml(recipe: str | Mapping[str, Any], rule: Mapping[str, Any]) -> str:
    """The recipe with the weights as a file: one table per category, and one for all others."""
    base, changes = recipe_of(recipe)
    lines = [f'base = "{base}"', *(f"{k} = {_toml(v)}" for k, v in changes.items()), ""]
    for category, weights in {EVERY: rule["weights"], **rule["categories"]}.items():
        lines += [f'[weights."{category}"]', *(f"{reward} = {weight:.6f}" for reward, weight in weights.items()), ""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)


def text_checks(caption: str, capability: str) -> list[dict[str, Any]]:
    """A check that the caption's quoted text can be read in the picture; empty without quoted text."""
    from curation.scorers.quotes import quoted_text

    text = quoted_text(caption)
    return [{"verifier": "text", "capability": capability, "text": text}] if text else []


def reward_of(verifier: str) -> str:
    """The reward that a verifier's failures raise."""
    return REWARD_OF.get(verifier, INSTRUCTION)


def _vector(weights: Mapping[str, float], own: Sequence[str], focus: float) -> dict[str, float]:
    floor = 1e-9  # avoids division by zero if all weights are 0
    inside = sum(weights[v] + floor for v in own)
    outside = sum(w + floor for v, w in weights.items() if v not in own)
    share = focus if outside else 1.0
    return {v: (share / inside if v in own else (1 - share) / outside) * (w + floor) for v, w in weights.items()}


def _apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Integers that sum to `total`, in proportion to `shares` (largest remainders)."""
    exact = {k: v * total / sum(shares.values()) for k, v in shares.items()}
    out = {k: int(x) for k, x in exact.items()}
    for k in sorted(exact, key=lambda k: (out[k] - exact[k], k))[: total - sum(out.values())]:
        out[k] += 1
    return out
