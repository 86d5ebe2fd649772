"""The analysts' tables: the meaning of each view and column. `flywheel.catalog.database` creates the views."""

from __future__ import annotations

import pyarrow as pa

from flywheel.core.schema import CAPTIONS, LEDGERS, POOL, QUARANTINE, RIGHTS, SHARD, column

_UNDESCRIBED = "its scorer does not say what it means"


def _of(schema: pa.Schema, *names: str) -> list[pa.Field]:
    return [schema.field(name) for name in names]


def _scores() -> list[pa.Field]:
    """A column `<scorer>.<column>` for each score that a policy can name, of built-in and installed scorers."""
    from curation.scorers import SCORERS, scorer_class
    from curation.scorers.table import names_scores

    return [
        column(f"{name}.{field.name}", field.type, (field.metadata or {}).get(b"doc", b"").decode() or _UNDESCRIBED)
        for name in sorted(SCORERS)
        for field in scorer_class(name).fields
        if names_scores(field)
    ]


# Views of bulk tables; views about a snapshot show the latest one.
BULK: dict[str, tuple[str, pa.Schema]] = {
    "samples": (
        "one row per readable input row of the pool",
        pa.schema([*_of(POOL, "sample_id", "source_uri", "source", "task", "width", "height", "caption"), *RIGHTS]),
    ),
    "decisions": (
        "what curation decided for each input row in the latest snapshot",
        pa.schema(
            [
                *_of(POOL, "sample_id", "source_uri"),
                column("stage_reached", pa.string(), "last stage that the row passed or stopped in"),
                column("outcome", pa.string(), "admitted | dropped"),
                column("filter", pa.string(), "filter of that stage which dropped it; null when admitted"),
                column("score", pa.float64(), "its score there"),
                column("threshold", pa.float64(), "the bound that the score missed"),
                column("survivor", pa.string(), "sample that it duplicates"),
                column("survivor_uri", pa.string(), "where that sample came from"),
                column("shard", pa.string(), "shard of the pool that holds it"),
                column("row", pa.int32(), "its row there, from 0"),
            ]
        ),
    ),
    "all_decisions": (
        "what every snapshot decided for each of its input rows",
        pa.schema(
            [
                column("snapshot", pa.string(), "the snapshot"),
                *_of(POOL, "sample_id", "source_uri"),
                column("stage_reached", pa.string(), "last stage that the row passed or stopped in"),
                column("outcome", pa.string(), "admitted | dropped"),
                column("filter", pa.string(), "filter of that stage which dropped it; null when admitted"),
                column("score", pa.float64(), "its score there"),
                column("threshold", pa.float64(), "the bound that the score missed"),
            ]
        ),
    ),
    "scores": (
        "every score of each row, as the latest snapshot has it; columns of scorers that never ran are null",
        pa.schema([*_of(POOL, "sample_id", "source_uri", "source", "task", "stream"), *RIGHTS, *_scores()]),
    ),
    "map_points": (
        "places of samples and of failing prompts on the map (`flywheel map`); what is near says the like",
        pa.schema(
            [
                column("sample_id", pa.string(), "the sample; null: the point is a case"),
                column("case_id", pa.string(), "the case; null: the point is a sample"),
                column("x", pa.float64(), "to the right, −1 to 1 at the time it was laid out"),
                column("y", pa.float64(), "upwards, in the same unit"),
            ]
        ),
    ),
    "shard_rows": (
        "one row per row of the training shards of the latest snapshot, without its pictures",
        pa.schema([f for f in SHARD if f.name not in ("image", "references", "mask", "captions")]),
    ),
    "quarantine": ("input rows that could not be read or scored", QUARANTINE),
    "funnel": (
        "rows entering and leaving each filter, in order",
        pa.schema(
            [
                column("stage", pa.string(), "S1 … S6"),
                column("bucket", pa.int32(), "resolution bucket, pixels"),
                column("filter", pa.string(), "name of the filter"),
                column("status", pa.string(), "applied | not configured"),
                column("entered", pa.int64(), "rows that reached it"),
                column("dropped", pa.int64(), "rows that it dropped"),
                column("quarantined", pa.int64(), "rows that could not be judged"),
            ]
        ),
    ),
    "captions": ("captions that a model wrote, or the reason its answer was refused", CAPTIONS),
    "generated": (
        "samples that a remedy retrieved or generated for a capability, and the results of their entry checks",
        pa.schema(
            [
                column("sample_id", pa.string(), "the sample"),
                column("round", pa.int32(), "round that asked for it"),
                column("capability", pa.string(), "capability that it serves"),
                column("recipe", pa.string(), "how it was retrieved or generated"),
                column("caption", pa.string(), "its caption or instruction"),
                column("outcome", pa.string(), "admitted | dropped"),
                column("filter", pa.string(), "entry check that dropped it; null when admitted"),
                column("score", pa.float64(), "its score there"),
                column("threshold", pa.float64(), "the bound that the score missed"),
            ]
        ),
    ),
}

LEDGER_MEANINGS = {
    "snapshots": "every committed data snapshot",
    "signals": "every verdict of a verifier, a user or a battle on one picture",
    "case_events": "what happened to each failure case",
    "probes": "experiments that attribute a case to a remedy track",
    "battles": "pairwise votes of the arena",
    "human_verdicts": "verdicts of people on pictures that a verifier judged",
    "rounds": "finished rounds with the gate's verdict",
    "promotions": "promotions, rejections and roll-backs by a person",
    "reviews": "what happened to each item of the review queue",
    "runs": "which process ran the workspace, and when",
    "exports": "where shards and tables were exported to",
    "erasures": "pictures that were erased: who asked, why, and which checkpoints had seen them",
    "tag_events": "tags that people added to samples, or removed",
    "costs": "cost of each finished step",
}

# Views derived from ledgers.
DERIVED: dict[str, tuple[str, pa.Schema]] = {
    "cases": (
        "each failure case as it is after its last event",
        pa.schema(
            [
                *_of(LEDGERS["case_events"], "case_id"),
                column("round", pa.int32(), "round in which it was detected"),
                *_of(LEDGERS["case_events"], "capability", "track"),
                column(
                    "status", pa.string(), "detected | routed | reviewed | remedied | closed | re-opened, or dismissed"
                ),
                *_of(LEDGERS["case_events"], "prompt_id", "prompt"),
                column("fixed_in", pa.int32(), "last round in which it passed; null if it never did"),
                column("image", pa.string(), "workspace path of the picture that failed first"),
            ]
        ),
    ),
    "tags": (
        "tags that samples have now",
        pa.schema(
            [
                *_of(LEDGERS["tag_events"], "sample_id", "tag"),
                column("by", pa.string(), "who added it last"),
                column("at", pa.timestamp("us", "UTC"), "when it was added last"),
            ]
        ),
    ),
    "calibration": (
        "each verifier beside blind verdicts of people: how often it is right, and the failure rate they would see",
        pa.schema(
            [
                column("verifier", pa.string(), "name of the check"),
                column("verdicts", pa.int64(), "verdicts that it gave on pictures of evaluations"),
                column("passed", pa.int64(), "of those, how many passed"),
                column("passes", pa.int64(), "of its passes, how many people judged blind"),
                column("fails", pa.int64(), "of its fails, how many people judged blind"),
                column("good_passes", pa.int64(), "of those passes, how many people found good"),
                column("good_fails", pa.int64(), "of those fails, how many people found good"),
                column("pictures", pa.int64(), "verdicts on pictures of the latest candidate"),
                column("failed", pa.int64(), "of those, how many failed"),
                column("tpr", pa.float64(), "share of good pictures that it passes; null: nothing tells"),
                column("tpr_low", pa.float64(), "lower end of its 95 % interval"),
                column("tpr_high", pa.float64(), "upper end of its 95 % interval"),
                column("tnr", pa.float64(), "share of bad pictures that it fails; null: nothing tells"),
                column("tnr_low", pa.float64(), "lower end of its 95 % interval"),
                column("tnr_high", pa.float64(), "upper end of its 95 % interval"),
                column("kappa", pa.float64(), "Cohen's kappa of verifier and people, −1 to 1"),
                column("failure_rate", pa.float64(), "share of the latest candidate's pictures that it fails"),
                column("corrected", pa.float64(), "the share that people would fail (Rogan and Gladen)"),
                column("corrected_low", pa.float64(), "lower end of its 95 % interval"),
                column("corrected_high", pa.float64(), "upper end of its 95 % interval"),
                column("state", pa.string(), "trusted | not trusted | not calibrated"),
            ]
        ),
    ),
    "round_costs": (
        "cost of each round, and of each case that it fixed",
        pa.schema(
            [
                column("round", pa.int32(), "round number; 0: ingest and curation"),
                column("cpu_seconds", pa.float64(), "of all processes"),
                column("gpu_seconds", pa.float64(), "elapsed time times visible GPUs"),
                column("wall_seconds", pa.float64(), "elapsed time"),
                column("reviews", pa.int64(), "decisions by people"),
                column("fixed", pa.int64(), "cases that passed again"),
                column("cpu_seconds_per_fixed", pa.float64(), "null when nothing was fixed"),
                column("gpu_seconds_per_fixed", pa.float64(), "null when nothing was fixed"),
            ]
        ),
    ),
}

LEDGER_VIEWS = {name: (f"{LEDGER_MEANINGS[name]}; append-only", schema) for name, schema in LEDGERS.items()}
ALL: dict[str, tuple[str, pa.Schema]] = {**BULK, **LEDGER_VIEWS, **DERIVED}


def meaning(field: pa.Field) -> str:
    """The meaning of a column."""
    return field.metadata[b"doc"].decode()
