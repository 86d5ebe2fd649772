"""Error attribution by experiment: the remedy track of a failure (report, section 2.4; the order of tests is ours)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flywheel.preset import Attribution, Evaluation
from flywheel.signals.evaluation import judge_images, sample_suite
from flywheel.signals.suite import Prompt


@dataclass(frozen=True)
class Probe:
    """What the experiment saw for one case."""

    enhanced: str | None  # the enhanced prompt; None when the enhancer had nothing to change
    enhanced_passed: bool | None
    seeds: int
    seeds_passed: int
    density: float  # percentile of the pool's own density around the prompt


def attribute(probe: Probe, settings: Attribution) -> tuple[str, str]:
    """(track, reason). Enhanced prompt passes → prompt_enhancement; some seeds pass → rl; none passes and the pool is
    sparse → pretraining; none passes and it is dense → human.
    """
    if probe.enhanced_passed:
        return "prompt_enhancement", f"passes once the prompt reads: {probe.enhanced}"
    if probe.seeds_passed:
        return "rl", f"{probe.seeds_passed} of {probe.seeds} further seeds pass: the model can, but rarely does"
    where = f"density percentile {probe.density:.0f}, limit {settings.sparse_percentile:.0f}"
    if probe.density < settings.sparse_percentile:
        return "pretraining", f"none of {probe.seeds} seeds passes and the pool is sparse around the prompt ({where})"
    return "human", f"none of {probe.seeds} seeds passes although the pool is dense around the prompt ({where})"


def probe(
    prompts: Sequence[Prompt],
    checkpoint: Path,
    folder: Path,
    *,
    enhance: Callable[[str], str | None],
    density: Callable[[Sequence[str]], Sequence[float]],
    evaluation: Evaluation,
    settings: Attribution,
    seed: int,
    progress: Callable[..., None] | None = None,
) -> dict[tuple[str, str], Probe]:
    """A `Probe` per (prompt_id, capability) of each prompt; its images stay in `folder` as evidence."""
    if not prompts:
        return {}
    passed: dict[tuple[str, str], int] = {}
    for k in range(1, settings.seeds + 1):
        for key, ok in _passes(prompts, checkpoint, folder / f"seed-{k}", evaluation, seed + k, progress).items():
            passed[key] = passed.get(key, 0) + ok
    enhanced = {p.prompt_id: text for p in prompts if (text := enhance(p.text))}
    rewritten = [replace(p, text=enhanced[p.prompt_id]) for p in prompts if p.prompt_id in enhanced]
    better = _passes(rewritten, checkpoint, folder / "enhanced", evaluation, seed, progress)
    dense = dict(zip([p.prompt_id for p in prompts], density([p.text for p in prompts])))
    return {
        (p.prompt_id, c): Probe(
            enhanced=enhanced.get(p.prompt_id),
            enhanced_passed=better.get((p.prompt_id, c)),
            seeds=settings.seeds,
            seeds_passed=passed.get((p.prompt_id, c), 0),
            density=float(dense[p.prompt_id]),
        )
        for p in prompts
        for c in {check["capability"] for check in p.checks}
    }


def _passes(
    prompts: Sequence[Prompt], checkpoint: Path, folder: Path, evaluation: Evaluation, seed: int, progress: Any
) -> dict[tuple[str, str], bool]:
    if not prompts:
        return {}
    images = sample_suite(prompts, checkpoint, folder, settings=evaluation, seed=seed, progress=progress)
    out: dict[tuple[str, str], bool] = {}
    for p, outcomes in zip(prompts, judge_images(prompts, images)):
        for o in outcomes:
            if o.passed is not None:
                out[p.prompt_id, o.capability] = out.get((p.prompt_id, o.capability), True) and o.passed
    return out
