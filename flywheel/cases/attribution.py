"""Error attribution by experiment: the remedy track of a failure (report, section 2.4; the order of tests is ours).

Experiments are stored as probes. The track is a query over everything stored about a case: the probes of all rounds,
and the seeds that training itself has tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from flywheel.core.generator import Generator
from flywheel.core.workspace import Workspace
from flywheel.presets import Attribution, Evaluation
from flywheel.signals.drawing import BATCH
from flywheel.signals.sheets import Judged, Sheet, Workers, draw_and_judge
from flywheel.signals.suite import Prompt

# Evidence of a case → track and reason, in this order: the enhanced prompt passes → prompt_enhancement; some seeds
# pass → rl; evidence is missing or near the limit → unsure; the pool is sparse → pretraining; it is dense → human.
_ATTRIBUTE = """
WITH shares AS (
    SELECT *, coalesce(seeds_passed / nullif(seeds, 0), 0) AS share,
           coalesce(enhanced_passed / nullif(enhanced_seeds, 0), 0) AS enhanced_share,
           format('{} of {} further seeds pass', coalesce(seeds_passed, 0), coalesce(seeds, 0)) AS passes,
           format('density percentile {:.0f}, limit {:.0f}', density::DOUBLE, $sparse_percentile::DOUBLE) AS near
    FROM evidence
),
judged AS (
    SELECT *, CASE
        WHEN enhanced_share > 0 AND enhanced_share >= share + $enhanced_gain THEN 'prompt_enhancement'
        WHEN seeds_passed > 0 THEN 'rl'
        WHEN coalesce(seeds, 0) < $min_seeds OR density IS NULL THEN 'unsure'
        WHEN abs(density - $sparse_percentile) < $unsure_margin THEN 'unsure'
        WHEN density < $sparse_percentile THEN 'pretraining'
        ELSE 'human' END AS track
    FROM shares
)
SELECT *, CASE track
    WHEN 'prompt_enhancement' THEN format('passes once the prompt reads: {}', enhanced)
    WHEN 'rl' THEN passes || ': the model can, but rarely does'
    WHEN 'pretraining' THEN format('none of {} seeds passes and the pool is sparse around it ({})', seeds, near)
    WHEN 'human' THEN format('none of {} seeds passes although the pool is dense around it ({})', seeds, near)
    ELSE CASE
        WHEN seeds IS NULL THEN 'unsure: not experimented on yet, the budget went to other cases'
        WHEN seeds < $min_seeds THEN format('unsure: only {} seeds were tried, {} are needed', seeds, $min_seeds::INT)
        WHEN density IS NULL THEN format('unsure: none of {} seeds passes, the density of the pool is unknown', seeds)
        ELSE format('unsure: none of {} seeds passes, neither sparse nor dense ({})', seeds, near) END
    END AS reason
FROM judged
"""


def attribution_sql(evidence: str, settings: Attribution) -> tuple[str, dict[str, Any]]:
    """SQL and its parameters: the rows of the query `evidence`, with the columns `track` and `reason` added.

    `evidence` has seeds, seeds_passed, enhanced, enhanced_seeds, enhanced_passed, density; null if unknown.
    """
    names = ("sparse_percentile", "enhanced_gain", "min_seeds", "unsure_margin")
    sql = _ATTRIBUTE.replace("FROM evidence", f"FROM ({evidence})")
    return sql, {k: getattr(settings, k) for k in names}


def attribute(evidence: pa.Table, settings: Attribution) -> list[tuple[str, str]]:
    """(track, reason) of each row of evidence, in order. For the columns see `attribution_sql`."""
    import duckdb

    con = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    try:
        con.register("cases", evidence.append_column("number", pa.array(range(evidence.num_rows), pa.int64())))
        sql, values = attribution_sql("SELECT * FROM cases", settings)
        return con.execute(f"SELECT track, reason FROM ({sql}) ORDER BY number", values).fetchall()
    finally:
        con.close()


def affordable(prompts: Sequence[Prompt], settings: Attribution) -> list[Prompt]:
    """The first prompts, as many as the budget of images allows experiments for."""
    count = settings.budget // (settings.seeds + settings.enhanced_seeds) if settings.budget else None
    return list(prompts[:count])


def batches(prompts: Sequence[Prompt]) -> Iterator[list[Prompt]]:
    """Prompts whose experiments run and are recorded together: a killed round loses at most one batch."""
    ordered = sorted(prompts, key=lambda p: len(p.references))  # drawing forms its batches in this order
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


def probe(
    prompts: Sequence[Prompt],
    generator: Generator,
    folder: Path,
    *,
    workspace: Workspace,
    enhance: Callable[[str, Sequence[bytes]], str | None],
    drawn: Callable[[str, Sequence[bytes]], str | None] = lambda prompt, pictures: None,
    density: Callable[[Sequence[str]], Sequence[float]],
    absent: Callable[[Prompt, str], bool] = lambda prompt, capability: False,
    evaluation: Evaluation,
    settings: Attribution,
    seed: int,
    workers: Workers | None = None,
    progress: Callable[..., None] | None = None,
) -> list[dict[str, Any]]:
    """One row of evidence per prompt and capability of its checks; the images stay in `folder`.

    enhance: the enhancer on trial, which gives a better text for a text and its references, or None; drawn: the one
    that the system has already.
    density: percentiles of texts; absent: whether the pool lacks what a prompt's checks of a capability ask for, by
    name: then its density there is 0. workers: processes that draw and judge in place of this one.
    Only checks that could be applied count; if none of a capability's checks could, its `seeds` is null.
    """
    shown = [p.reference_bytes() for p in prompts]
    own = [replace(p, text=drawn(p.text, pictures) or p.text) for p, pictures in zip(prompts, shown)]
    texts = [enhance(p.text, pictures) for p, pictures in zip(prompts, shown)]
    enhanced = {p.prompt_id: text for p, now, text in zip(prompts, own, texts) if text and text != now.text}
    rewritten = [replace(p, text=enhanced[p.prompt_id]) for p in prompts if p.prompt_id in enhanced]
    last = seed + evaluation.pictures - 1  # the seed of the evaluation's last picture
    tries = [Sheet(own, prompts, folder / f"seed-{k}", last + k) for k in range(1, settings.seeds + 1)]
    better = [Sheet(rewritten, rewritten, folder / f"enhanced-{k}", seed + k) for k in range(settings.enhanced_seeds)]
    sheets = draw_and_judge(
        [*tries, *better], generator, workspace=workspace, settings=evaluation, workers=workers, progress=progress
    )
    found = list(sheets)
    passed, passed_enhanced = _passes(tries, found[: len(tries)]), _passes(better, found[len(tries) :])
    near = dict(zip((p.prompt_id for p in prompts), density([p.text for p in prompts]), strict=True))
    return [
        _evidence(
            (p.prompt_id, capability),
            0.0 if absent(p, capability) else float(near[p.prompt_id]),
            enhanced.get(p.prompt_id),
            passed.get((p.prompt_id, capability)),
            passed_enhanced.get((p.prompt_id, capability)),
        )
        for p in prompts
        for capability in dict.fromkeys(check["capability"] for check in p.checks)
    ]


def _passes(sheets: Sequence[Sheet], found: Sequence[Sequence[Judged]]) -> dict[tuple[str, str], list[bool]]:
    """{(prompt id, capability): whether each picture passes all of its checks that could be applied}."""
    out: dict[tuple[str, str], list[bool]] = {}
    for sheet, judged in zip(sheets, found, strict=True):
        for p, (_, outcomes) in zip(sheet.suite, judged):
            applied = [o for o in outcomes if o.passed is not None]
            for capability in dict.fromkeys(o.capability for o in applied):
                passed = all(o.passed for o in applied if o.capability == capability)
                out.setdefault((p.prompt_id, capability), []).append(passed)
    return out


def _evidence(
    of: tuple[str, str], density: float, enhanced: str | None, seeds: list[bool] | None, rewrites: list[bool] | None
) -> dict[str, Any]:
    """A row of evidence; seeds, rewrites: does each try pass? None: no check of the capability could be applied."""
    return {
        "prompt_id": of[0],
        "capability": of[1],
        "density": density,
        "enhanced": enhanced,
        "seeds": seeds and len(seeds),
        "seeds_passed": seeds and sum(seeds),
        "enhanced_seeds": rewrites and len(rewrites),
        "enhanced_passed": rewrites and sum(rewrites),
    }
