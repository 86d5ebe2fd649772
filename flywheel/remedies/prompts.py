"""Prompts for reinforcement learning and distillation: fresh ones of a capability, each with the checks that judge it.

A case names a prompt of the held-out suite, which must not be trained on: its capability is generalised instead.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from curation.synthesis import GENERATORS, draw
from flywheel.cases.events import Case
from flywheel.signals.suite import write_rows
from flywheel.workspace import UsageError, write_bytes


def rl_capabilities(cases: Sequence[Case]) -> list[str]:
    """Capabilities with an open case on the RL track that prompts can be made for, those with most cases first.

    Errors: `UsageError` when there is none.
    """
    counts: dict[str, int] = {}
    for case in cases:
        if case.is_open and case.track == "rl":
            counts[case.capability] = counts.get(case.capability, 0) + 1
    served = [c for c in sorted(counts, key=lambda c: (-counts[c], c)) if c in GENERATORS]
    if not served:
        raise UsageError(
            f"no open case on the RL track has a capability that prompts can be made for ({', '.join(GENERATORS)}): "
            "name some with --capability"
        )
    return served


def write_prompts(
    path: Path, capabilities: Sequence[str], count: int, *, seed: int, exclude: frozenset[str]
) -> dict[str, int]:
    """Write `count` prompts a capability as a suite file, their references beside it; returns {capability: prompts}.

    Neither wording nor meaning of an excluded prompt is made, and no prompt twice: a capability with few variants gets
    fewer. Errors: `UsageError` for a capability that no generator serves.
    """
    rows, made = [], {}
    for capability in dict.fromkeys(capabilities):
        if capability not in GENERATORS:
            raise UsageError(f"no generator serves {capability!r}: choose from {', '.join(GENERATORS)}")
        stream = draw([make() for make in GENERATORS[capability]], seed=f"{seed}/prompts/{capability}", exclude=exclude)
        seen: set[tuple] = set()
        for sample in itertools.islice(stream, 4 * count):
            key = (sample.caption, sample.references)
            checks = [c for c in sample.checks if c["capability"] == capability]
            if key in seen or not checks or len(seen) == count:
                continue
            identity, references = f"{capability}-{len(seen):05d}", []
            for number, data in enumerate(sample.references):
                references.append(f"references/{identity}-{number}.png")
                write_bytes(path.parent / references[-1], data)
            seen.add(key)
            rest = [c for c in sample.checks if c not in checks]  # the capability's own come first: its category
            rows.append(
                {
                    "prompt_id": identity,
                    "prompt": sample.caption,
                    "task": sample.task,
                    "references": references,
                    "checks": checks + rest,
                }
            )
        made[capability] = len(seen)
    write_rows(path, rows)
    return made
