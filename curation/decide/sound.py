"""Sound rows: those that pass the stage where they enter, and the policy's filters of quality at any resolution."""

from __future__ import annotations

import pyarrow as pa

from curation.decide.judge import verdicts
from curation.decide.judging import HeldOut, open_judging
from curation.policy import sql
from curation.policy.policy import Filter, Policy
from curation.run import configure
from flywheel.core.workspace import Workspace

# Columns that tell how good a picture is, whatever it shows. A later stage judges only its largest bucket by them.
QUALITY = ("pixels.sharpness", "header.jpeg_quality", "clip.aesthetic", "quality.brisque", "detail.native_edge")
_COLUMNS = ("shard", "row", "sample_id", "image_id", "task", "reference_ids")


def sound_rows(workspace: Workspace, policy: Policy) -> pa.Table:
    """The rows of the scored pool, one per sample, that are good enough to judge a model by.

    Columns: shard, row, sample_id, image_id, task, reference_ids, `category` (null where the policy does not score it).
    Pictures that shards turn are left out. No image is read. Errors: `UsageError` where a score file is missing.
    """
    scorers, _ = configure(policy)
    cells = verdicts(workspace, policy, scorers, HeldOut(captioned=True)).cells
    with open_judging(workspace, policy, scorers, HeldOut()) as judging:
        judging.connection.register("cells", cells)
        category = '"category.name"' if "category.name" in judging.columns else "CAST(NULL AS VARCHAR)"
        good = [f"({_holds(f)})" for f in quality_filters(policy) if f.score in judging.columns]
        if "ocr.turn" in judging.columns:
            good.append('coalesce("ocr.turn", 0) = 0')
        return judging.query(
            f"""SELECT {", ".join(_COLUMNS)}, {category} AS category
            FROM every JOIN cells USING (n) WHERE ({_enters(policy)}) AND {" AND ".join(["true", *good])}
            QUALIFY row_number() OVER (PARTITION BY sample_id ORDER BY n) = 1 ORDER BY sample_id"""
        )


def quality_filters(policy: Policy) -> list[Filter]:
    """The first filter of each quality column, in the order of the policy: later ones are stricter."""
    first: dict[str, Filter] = {}
    for filter_ in (f for s in policy.stages for f in s.filters if f.score in QUALITY):
        first.setdefault(filter_.score or "", filter_)
    return list(first.values())


def _enters(policy: Policy) -> str:
    """Condition of the rows that pass the stage of their stream, in its smallest bucket."""
    passed = [
        f'(stream = {sql.quoted(stream)} AND "{sql.cell(stage.name, stage.resolutions[0])}" = 0)'
        for stage in policy.stages
        for stream in stage.enters
    ]
    return " OR ".join(passed) or "false"


def _holds(filter_: Filter) -> str:
    """Condition of the rows that the filter lets pass; a score that is null judges nothing."""
    column = f'"{filter_.score}"'
    limits = [(filter_.min, ">="), (filter_.max, "<=")]
    return " AND ".join(["true", *(f"coalesce({column} {sign} {v}, true)" for v, sign in limits if v is not None)])
