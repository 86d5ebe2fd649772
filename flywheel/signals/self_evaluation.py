"""Self-evaluation: draw the suite with many seeds, for example from a checkpoint during training, and judge it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from flywheel.core.files import digest, write_parquet
from flywheel.core.generator import Generator
from flywheel.core.workspace import Workspace
from flywheel.presets import Evaluation
from flywheel.signals.drawing import OnProgress, picture_name
from flywheel.signals.sheets import Sheet, draw_and_judge
from flywheel.signals.suite import Prompt

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("prompt_id", "prompt", "task", "capability", "checkpoint")),
        ("seed", pa.int64()),
        ("verifier", pa.string()),
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("image", pa.string()),
    ]
)


def self_evaluate(
    workspace: Workspace,
    generator: Generator,
    model: str,
    suite: Sequence[Prompt],
    seeds: Sequence[int],
    settings: Evaluation,
    *,
    progress: OnProgress | None = None,
) -> Path:
    """Write judgements of the suite drawn with every seed, as `flywheel.signals.mining` reads them; returns the file.

    model: name of the generator in the judgements. The file is named by generator, suite, seeds and settings: a
    finished one is kept, a killed call resumes. A picture that the generator refuses has no judgement.
    """
    prompts = [(p.prompt_id, p.text, [hashlib.sha256(r).hexdigest() for r in p.reference_bytes()]) for p in suite]
    name = digest(generator.fingerprint, prompts, settings.side, settings.steps, settings.cfg)[:16]
    judged_by = [[p.checks for p in suite], dict(settings.judge), dict(settings.scorers)]
    path = workspace.path("judgements", f"{digest(name, judged_by, list(seeds))[:16]}.parquet")
    if path.exists():
        return path
    folder, rows = workspace.path("samples", f"self-{name}"), list[dict[str, Any]]()
    sheets = [Sheet(suite, suite, folder / f"seed-{seed}", seed) for seed in seeds]
    found = draw_and_judge(sheets, generator, workspace=workspace, settings=settings, progress=progress)
    for sheet, judged in zip(sheets, found):
        for prompt, (undrawn, outcomes) in zip(suite, judged):
            if undrawn:
                continue
            image = str((sheet.folder / picture_name(prompt.prompt_id)).relative_to(workspace.root))
            sample: dict[str, Any] = {"checkpoint": model, "seed": sheet.seed, "image": image}
            sample |= {"prompt_id": prompt.prompt_id, "prompt": prompt.text, "task": prompt.task}
            keys = ("capability", "verifier", "score", "threshold")
            rows += [sample | {k: getattr(o, k) for k in keys} for o in outcomes]
    write_parquet(path, pa.Table.from_pylist(rows, schema=SCHEMA))
    return path
