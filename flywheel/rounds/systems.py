"""Systems of a workspace: what each arm of a round draws with, written once to `system.json` in the arm's folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from flywheel import generators
from flywheel.core.errors import UsageError
from flywheel.core.files import digest, file_digest, read_json, write_json
from flywheel.core.generator import Generator
from flywheel.core.ledger import Ledger
from flywheel.core.mirror import fetched, publish
from flywheel.core.records import System
from flywheel.core.workspace import Workspace
from flywheel.presets import Enhancer, Evaluation, load_preset
from flywheel.remedies.enhancer import Rewriter, load_enhancer
from flywheel.signals.sheets import Workers
from flywheel.signals.suite import Prompt

_WEIGHTS = ("*.safetensors", "*.bin", "tokenizer*.json", "*config.json")


def compose(
    workspace: Workspace,
    checkpoint: Path,
    settings: Evaluation,
    *,
    enhancer: Mapping[str, str] | None = None,
    student: Path | None = None,
) -> System:
    """The system of a generator's folder: sampled as `settings` say, or as a distilled checkpoint itself says.

    Errors: `UsageError` if the folder holds no generator.
    """
    from training.checkpoint import Checkpoint

    if (kind := generators.describe(checkpoint))["kind"] != "checkpoint":
        return System(
            checkpoint=workspace.relative(checkpoint),
            weights=generators.open_generator(kind).fingerprint,
            enhancer=enhancer,
            side=settings.side,
            steps=settings.steps,
            cfg=settings.cfg,
            schedule="own",
            generator={"kind": kind["kind"], "model": _model(workspace, kind)},
        )
    weights, few = Checkpoint(fetched(checkpoint)), Checkpoint(fetched(student)) if student else None
    steps, cfg = _own(weights.config) or (settings.steps, settings.cfg)
    return System(
        checkpoint=workspace.relative(checkpoint),
        weights=weights.fingerprint,
        enhancer=enhancer,
        side=settings.side,
        steps=steps,
        cfg=cfg,
        schedule="own" if _own(weights.config) else weights.config.get("schedule", "uniform"),
        student=workspace.relative(student) if student else None,
        student_weights=few.fingerprint if few else None,
    )


def _model(workspace: Workspace, kind: Mapping[str, Any]) -> str:
    """What a generator of another kind draws with, for people: a workspace path, a hub tag, a model's name."""
    named = str(kind.get("model") or kind.get("folder") or "")
    return workspace.relative(Path(named)) if named.startswith("/") else named


def generator(workspace: Workspace, system: System) -> Generator:
    """The generator that the system draws with. Errors: `UsageError` if its folder holds none."""
    return generators.open_generator(generators.describe(workspace.path(system.checkpoint)))


def workers(workspace: Workspace, system: System, count: int | None = None) -> Workers | None:
    """The processes that draw with the system; None: this one does, as where a server draws.

    count: of processes; None: one per GPU where there are several, or as many as the cluster at RAY_ADDRESS has room
    for.
    """
    table = generators.describe(workspace.path(system.checkpoint))
    if table["kind"] not in ("checkpoint", "diffusers"):
        return None
    if count is None and not os.environ.get("RAY_ADDRESS"):
        import torch

        count = torch.cuda.device_count()
    return Workers(partial(generators.open_generator, table), count) if count is None or count > 1 else None


def student_of(workspace: Workspace, system: System) -> System:
    """The system with its student as the checkpoint, at the student's own steps. Errors: `UsageError` without one."""
    from training.checkpoint import Checkpoint

    if system.student is None:
        raise UsageError(
            "the system in service has no student: set distil.updates in the preset, or draw without --student"
        )
    steps, cfg = _own(Checkpoint(fetched(workspace.path(system.student))).config) or (system.steps, system.cfg)
    return replace(
        system,
        checkpoint=system.student,
        weights=system.student_weights,
        student=None,
        student_weights=None,
        steps=steps,
        cfg=cfg,
        schedule="own",
    )


def write(workspace: Workspace, number: int, arm: str, system: System) -> System:
    """Write the system of an arm unless it exists; returns the one on disk."""
    path = workspace.round(number).system(arm)
    if not path.exists():
        folder = fetched(path.parent)
        folder.mkdir(parents=True, exist_ok=True)
        system.write(folder / path.name)
        publish(path.parent)
    return System.read(path)


def read(workspace: Workspace, number: int, arm: str = "candidate") -> System:
    """The system of a round's arm.

    Older workspaces hold none: there it is the checkpoint with the settings of the last run's preset.
    """
    path = workspace.round(number).system(arm)
    if path.exists():
        return System.read(path)
    row = next((r for r in Ledger(workspace, "rounds").rows() if r["round"] == number), None)
    if row is None or arm != "candidate":
        raise UsageError(f"round {number} has no {arm} yet: `flywheel round status` shows what is finished")
    last = _settings_of_last_run(workspace)
    if last is None:
        return System(checkpoint=row["checkpoint"])
    return System(checkpoint=row["checkpoint"], side=last.side, steps=last.steps, cfg=last.cfg)


def evaluation(system: System, settings: Evaluation) -> Evaluation:
    """The settings with the system's own way of sampling."""
    own = {k: v for k in ("side", "steps", "cfg") if (v := getattr(system, k)) is not None}
    return replace(settings, **own)


def rewriter(workspace: Workspace, system: System) -> Rewriter:
    """The system's enhancer: (prompt, references) → what is drawn in its place; None if it is drawn as written."""
    if system.enhancer is None:
        return lambda prompt, pictures=(): None
    backend = system.enhancer["backend"]
    own = workspace.path(backend)
    backend = str(fetched(own)) if backend not in ("", "rules") and own.exists() else backend
    model, key = (system.enhancer.get(k, "") for k in ("model", "key_variable"))
    sees = system.enhancer.get("sees", "") == "yes"
    settings = Enhancer(backend=backend, model=model, key_variable=key, sees=sees)
    return load_enhancer(settings, workspace.path("enhanced"))


def rewritten(workspace: Workspace, system: System, suite: Sequence[Prompt], folder: Path) -> dict[str, str]:
    """{prompt_id: text that is drawn} of the prompts that the system's enhancer changes; kept in `folder`."""
    path = folder / "enhanced.json"
    if system.enhancer is None:
        return {}
    if not path.exists():
        rewrite = rewriter(workspace, system)
        write_json(path, {p.prompt_id: text for p in suite if (text := rewrite(p.text, p.reference_bytes()))})
    return read_json(path)


def enhancer_record(
    settings: Enhancer, workspace: Workspace | None = None, trained: Path | None = None
) -> dict[str, str]:
    """The enhancer of a preset as a system records it, or the one that a round has `trained` in its place.

    `sha256` identifies the files of a causal LM that is a folder; it is empty for rules, hub tags and endpoints.
    """
    folder = fetched(trained) if trained else Path(settings.backend)
    backend = workspace.relative(trained) if workspace and trained else settings.backend
    files = sorted({p for pattern in _WEIGHTS for p in folder.glob(pattern)}) if folder.is_dir() else []
    content = digest([(p.name, file_digest(p)) for p in files]) if files else ""
    if files and not trained:
        backend = str(folder.resolve())
    record = {"backend": backend, "model": settings.model, "key_variable": settings.key_variable, "sha256": content}
    return record | ({"sees": "yes"} if settings.sees else {})


def _own(config: Mapping[str, object]) -> tuple[int, float] | None:
    """(steps, cfg) that a distilled checkpoint prescribes; None for others."""
    sigmas = config.get("sigmas")
    return (len(sigmas), float(str(config.get("cfg", 1.0)))) if isinstance(sigmas, list) else None


def _settings_of_last_run(workspace: Workspace) -> Evaluation | None:
    from flywheel.rounds.lease import last_job

    try:
        return load_preset(last_job(workspace).preset).evaluation
    except UsageError:  # no run is recorded, or its preset is gone: the checkpoint's own settings
        return None
