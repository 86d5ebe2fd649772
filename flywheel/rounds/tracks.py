"""The steps of a round after its data phase: RL, the enhancer's training, distillation, and the systems they make.

Each finds its own finished work and resumes unfinished work, so that a killed round ends in the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flywheel.cases.events import event, load_cases
from flywheel.core.files import rename_folder
from flywheel.core.mirror import Publisher, fetched, mirror, publish
from flywheel.core.records import Remedy, RoundPlan, System
from flywheel.presets import Preset, recipe_of
from flywheel.remedies.held_out import HeldOut
from flywheel.rounds import systems
from flywheel.rounds.context import Context
from flywheel.rounds.steps import incumbent_round


def reinforce(run: Context, plan: RoundPlan, checkpoint: Path) -> Path:
    """Train the candidate by reward on the prompts of the RL cases; returns its checkpoint.

    Without a prompt whose picture can be judged, the candidate stays as it is, and the step says so.
    """
    from flywheel.remedies import reinforce as rl
    from training.checkpoint import Checkpoint, read_metrics
    from training.rl.trainer import NothingToLearn

    remedy, planned = run.workspace.round(plan.round).remedies / "rl", plan.remedy("rl", "grpo")
    prompts = remedy / "prompts.jsonl"
    if not prompts.exists() or not prompts.read_bytes().strip():
        run.progress.say("no prompt was found whose picture can be judged: the candidate is not reinforced")
        return checkpoint
    folder = run.workspace.round(plan.round).checkpoint("candidate-rl")
    given = {
        "prompts": str(prompts),
        "recipe": str(fetched(remedy / "recipe.toml")),
        "init": str(checkpoint),
        "seed": plan.seed + plan.round,
        "scorers": scorer_options(run.preset.evaluation.scorers),
    }
    try:
        call, steps = "flywheel.remedies.reinforce:reinforce_as", plan.updates("rl", "grpo")
        progress = _progress(run, folder, rl.reward_line)
        final = Checkpoint(trained_as(run.preset, folder, call, steps, given, progress, run.progress.say))
    except NothingToLearn as error:
        run.progress.say(f"the candidate is not reinforced: {error}")
        return checkpoint
    publish(folder)
    first = next((line for line in read_metrics(final.path.parent / "metrics.jsonl") if "held_out" in line), None)
    changes = _changes(first["held_out"] if first else {}, final.config.get("held_out", {}))
    run.progress.say(f"rewards on prompts that were not trained on: {changes or 'not measured, too few prompts'}")
    _remedied(run, plan, planned, {"updates": final.step, "rewards": changes})
    return folder / final.path.name


def fine_tune(run: Context, plan: RoundPlan) -> Path:
    """SFT of the enhancer on the round's examples; returns its folder."""
    from flywheel.remedies.enhancer_training import fine_tune as train

    settings, places = run.preset.enhancer, run.workspace.round(plan.round)
    examples = fetched(places.remedies / "enhancer" / "train.jsonl")
    options = {"steps": plan.updates("prompt_enhancement", "sft"), "batch": settings.batch, "lora": settings.lora}

    def write(folder: Path) -> None:
        losses = train(_enhancer_start(run, plan), examples, folder, seed=plan.seed + plan.round, **options)
        run.progress.say(f"enhancer: loss {losses['first_loss']:.3f} → {losses['last_loss']:.3f}")

    folder = whole_folder(places.enhancer / "sft", write)
    _remedied(run, plan, plan.remedy("prompt_enhancement", "sft"), {"enhancer": run.workspace.relative(folder)})
    return folder


def reinforce_enhancer(run: Context, plan: RoundPlan, model: Path, checkpoint: Path) -> Path:
    """GRPO of the enhancer, rewarded by rules on its text and by pictures of the candidate; returns its folder."""
    from curation.synthesis import generators
    from flywheel.remedies.enhancer_training import Drawn
    from flywheel.remedies.enhancer_training import reinforce as train
    from flywheel.remedies.prompts import write_prompts

    settings, planned = run.preset.enhancer, plan.remedy("prompt_enhancement", "grpo")
    places, seed = run.workspace.round(plan.round), plan.seed + plan.round
    remedy = places.remedies / "enhancer"
    able = [c for c in planned.targets if c in generators()]
    prompts = remedy / "prompts.jsonl"
    if able and not prompts.exists():
        each = max(1, settings.examples // (8 * len(able)))
        write_prompts(prompts, able, each, seed=seed, exclude=frozenset(p.text for p in run.held_out))
    drawn = Drawn(checkpoint, prompts, run.preset.evaluation.side, seed=seed) if able else None

    def write(folder: Path) -> None:
        options = {"steps": planned.updates or 0, "batch": settings.batch, "lora": settings.lora, "seed": seed}
        rewards = train(str(fetched(model)), fetched(remedy / "train.jsonl"), folder, drawn=drawn, **options)
        run.progress.say(f"enhancer: reward {rewards['first_reward']:.3f} → {rewards['last_reward']:.3f}")

    return whole_folder(places.enhancer / "grpo", write)


def distil(run: Context, plan: RoundPlan, checkpoint: Path) -> Path:
    """Distil the candidate to a student of a few steps, on prompts of the pool; returns the student's checkpoint."""
    from flywheel.remedies.prompts import pool_prompts

    planned, places = plan.remedy(None, "distil"), run.workspace.round(plan.round)
    prompts = places.remedies / "distil" / "prompts.jsonl"
    if not prompts.exists():
        held_out = HeldOut(p.text for p in run.held_out)
        pool_prompts(run.manifest(plan), prompts, planned.prompts or 0, held_out, seed=plan.seed)
    base, changes = recipe_of(run.preset.distil.recipe)
    folder, seed = places.checkpoint("student"), plan.seed + plan.round
    given = {"prompts": str(prompts), "base": base, "changes": changes, "init": str(checkpoint), "seed": seed}
    progress = _progress(run, folder, lambda line: f"fake loss {line['fake_loss']:.3f}")
    call = "flywheel.remedies.distil:distil_as"
    steps = plan.updates(None, "distil")
    final = trained_as(run.preset, folder, call, steps, given, progress, run.progress.say)
    publish(folder)
    return folder / final.name


def trained_as(
    preset: Preset,
    folder: Path,
    call: str,
    steps: int,
    given: Mapping[str, Any],
    progress: Callable[[int, int, Mapping[str, Any]], None],
    say: Callable[[str], None],
) -> Path:
    """Let `call` train in as many processes as the preset says: with one, here; returns the checkpoint."""
    import torch

    from training.worker import Job, called, train_job

    out_dir, threads, processes = fetched(folder), preset.threads, preset.training.processes
    arguments = {**given, "output": str(out_dir), "steps": steps}
    if processes == 1:
        torch.set_num_threads(threads)
        return called(call, **arguments, progress=progress).path
    job = Job(call=call, out_dir=str(out_dir), steps=steps, arguments=arguments)
    return train_job(job, threads=threads, processes=processes, progress=progress, say=say)


def assemble(
    run: Context, plan: RoundPlan, arms: Mapping[str, Path], enhancer: Path | None, student: Path | None
) -> dict[str, System]:
    """Write the system of each arm; returns {arm: system}, with the student as an arm of its own.

    The candidate gets the enhancer that the round has trained; the other arms, and a candidate of a round without, that
    of the incumbent, or of the preset if it says that systems draw through it.
    """
    before = systems.read(run.workspace, incumbent_round(run, plan)).enhancer if plan.incumbent else None
    if before is None and run.preset.enhancer.draw:
        before = systems.enhancer_record(run.preset.enhancer)
    out = {}
    for arm, checkpoint in arms.items():
        mine, record = arm == "candidate", before
        if mine and enhancer:
            record = systems.enhancer_record(run.preset.enhancer, run.workspace, enhancer)
        composed = systems.compose(
            run.workspace, checkpoint, run.preset.evaluation, enhancer=record, student=student if mine else None
        )
        out[arm] = systems.write(run.workspace, plan.round, arm, composed)
    if student:
        alone = systems.student_of(run.workspace, out["candidate"])
        out["student"] = systems.write(run.workspace, plan.round, "student", alone)
    return out


def scorer_options(configured: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Options by scorer name, from the preset's `evaluation.scorers`, where a key may name its scorer."""
    return {o.get("scorer", name): {k: v for k, v in o.items() if k != "scorer"} for name, o in configured.items()}


def _enhancer_start(run: Context, plan: RoundPlan) -> str:
    """The causal LM that training starts from: the incumbent's own, or the preset's."""
    record = systems.read(run.workspace, incumbent_round(run, plan)).enhancer if plan.incumbent else None
    own = run.workspace.path(record["backend"]) if record else None
    return str(fetched(own)) if own and (own / "config.json").exists() else run.preset.enhancer.backend


def whole_folder(folder: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a folder that appears whole or not at all; a finished one is kept."""
    if not (folder / "config.json").exists():
        final = mirror(folder)
        unfinished = final.with_name(f".{final.name}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        write(unfinished)
        shutil.rmtree(final, ignore_errors=True)  # a copy whose upload was cut off
        rename_folder(unfinished, final)
        publish(folder)
    return folder


def _progress(
    run: Context, folder: Path, note: Callable[[Mapping[str, Any]], str]
) -> Callable[[int, int, Mapping[str, Any]], None]:
    """Shows a loop's progress and publishes its folder from time to time."""
    publisher = Publisher([folder])

    def progress(done: int, total: int, line: Mapping[str, Any]) -> None:
        run.progress(done, total, note(line))
        publisher()

    return progress


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """`reward 0.41 → 0.44` of every reward that was measured before and after."""
    both = [n for n in after if before.get(n) is not None and after[n] is not None]
    return ", ".join(f"{n} {before[n]:.3f} → {after[n]:.3f}" for n in both)


def _remedied(run: Context, plan: RoundPlan, remedy: Remedy, evidence: Mapping[str, Any]) -> None:
    """Record that a remedy has served its cases."""
    cases = load_cases(run.workspace)
    events = [event(cases[c], plan.round, "remedied", {"remedy": remedy.kind, **evidence}) for c in remedy.case_ids]
    run.append("case_events", events, key=f"remedy/{plan.round}/{remedy.track}")
