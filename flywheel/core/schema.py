"""Arrow schemas of all tables; each column carries its meaning and unit."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

TASKS = ("t2i", "ti2i")
STAGES = ("S1", "S2", "S3", "S4", "S5", "S6")
ROW_GROUP = 64  # rows per Parquet row group of a shard
TRACKS = ("rl", "pretraining", "prompt_enhancement", "human", "unsure")
# Kinds of case events; within a round, later kinds win. `seen` (more signals of a case) never changes the status.
CASE_EVENTS = ("seen", "detected", "routed", "reviewed", "remedied", "passed", "failed", "dismissed")
CAPTION_KINDS = ("general", "text", "knowledge", "structured")  # of a picture; an edit has an instruction
VERDICTS = ("PROMOTE", "HOLD", "REJECT")
DECISIONS = ("promote", "reject", "rollback")
REVIEW_EVENTS = ("queued", "claimed", "accepted", "rejected")


def slice_column(names: Collection[str]) -> str:
    """Name of the column that holds a row's slice, given all column names: `track` in files of workspace format 1."""
    return "slice" if "slice" in names else "track"


def column(name: str, kind: pa.DataType, doc: str, *, nullable: bool = True) -> pa.Field:
    """An Arrow field with its documentation in the metadata key `doc`."""
    return pa.field(name, kind, nullable=nullable, metadata={"doc": doc})


# What a source says about who may use a picture; columns of the pool and of training shards.
RIGHTS = (
    column("license", pa.string(), "licence that the source states, as written; null: it states none"),
    column("source_url", pa.string(), "where the picture was published, as the source states; null: not stated"),
    column("consent", pa.string(), "consent that the source states, as written: yes, no, …; null: not stated"),
)

# Bulk tables (immutable Parquet) ------------------------------------------------------------------------------------
POOL = pa.schema(
    [
        column("sample_id", pa.string(), "SHA-256 of the image bytes; of bytes, references and instruction for ti2i"),
        column("source_uri", pa.string(), "where the row came from: file path, tar::member, parquet#row"),
        column("source", pa.string(), "name of the source the row belongs to"),
        column("task", pa.string(), "t2i | ti2i"),
        column("image", pa.large_binary(), "encoded image as found (for ti2i the target)"),
        column("width", pa.int32(), "pixels, upright (EXIF orientation applied)"),
        column("height", pa.int32(), "pixels, upright (EXIF orientation applied)"),
        column(
            "caption", pa.large_string(), "primary caption; for ti2i the edit instruction; empty where there is none"
        ),
        column(
            "captions",
            pa.list_(pa.struct([pa.field("kind", pa.string()), pa.field("text", pa.large_string())])),
            "every caption with its kind: general | text | knowledge | structured | instruction",
        ),
        column("reference_ids", pa.list_(pa.string()), "image ids of the reference images, in order (ti2i)"),
        column(
            "image_id", pa.string(), "SHA-256 of the image bytes: what reference_ids point at; for t2i the sample id"
        ),
        column("stream", pa.string(), "t2i | ti2i | synthetic: the data stream whose stage the row enters at"),
        column("mask", pa.large_binary(), "ti2i: gray picture, white where the edit changed it; null: unknown"),
        *RIGHTS,
    ]
)

QUARANTINE = pa.schema(
    [
        column("source_uri", pa.string(), "the input that could not be used"),
        column("reason", pa.string(), "class of the fault: what is wrong and what to do"),
    ]
)

# Keys of every score file, which has one row per row of its pool shard, in the same order.
SCORE_KEYS = (
    column("row", pa.int32(), "row number inside the file: of all rows of its pool shards"),
    column("sample_id", pa.string(), "sample that was scored"),
    column("error", pa.string(), "why this row has no scores; null when it has"),
)

# Side-cars of a pool shard: captions that a model wrote for its pictures.
CAPTIONS = pa.schema(
    [
        column("sample_id", pa.string(), "sample that was described"),
        column(
            "use", pa.string(), "fill | add | replace: what the caption is for; source: brought later by the source"
        ),
        column("kind", pa.string(), "general | text | knowledge | structured"),
        column("model", pa.string(), "model that was asked"),
        column("prompt", pa.string(), "version of the prompt: digest of its text; source: number of the version"),
        column("caption", pa.large_string(), "the caption; null where the answer was refused"),
        column("objects", pa.list_(pa.string()), "things in the picture"),
        column("style", pa.string(), "photograph, slide, comic, …"),
        column("quoted", pa.list_(pa.large_string()), "texts in the picture, in reading order"),
        column("watermark", pa.bool_(), "is there a watermark"),
        column("error", pa.string(), "why the answer was refused; null where it was not"),
        column("source_uri", pa.string(), "source: the row that it belongs to; else null"),
    ]
)

SHARD = pa.schema(
    [
        column("sample_id", pa.string(), "the pool's or generated sample's id"),
        column("task", pa.string(), "t2i | ti2i"),
        column("caption", pa.large_string(), "text condition"),
        column("image", pa.large_binary(), "target, PNG or JPEG, exactly width × height of the layout"),
        column("references", pa.list_(pa.large_binary()), "reference images, PNG or JPEG, same layout, in order"),
        column("slice", pa.string(), "'base', or the capability that asked for this sample"),
        column("stream", pa.string(), "t2i | ti2i | synthetic: where the row comes from"),
        column("width", pa.int32(), "pixels of image and references"),
        column("height", pa.int32(), "pixels of image and references"),
        column("source_width", pa.int32(), "pixels of the picture as found, upright: before it was fitted"),
        column("source_height", pa.int32(), "pixels of the picture as found, upright: before it was fitted"),
        column(
            "captions",
            pa.list_(pa.struct([("kind", pa.string()), ("text", pa.large_string()), ("origin", pa.string())])),
            "every caption: its kind, and its origin: 'source', or model@prompt; those of the source first",
        ),
        column("balance", pa.string(), "group by which the manifest weighs the row; null: weight 1"),
        column("mask", pa.large_binary(), "ti2i: gray PNG, white where the edit changed it; null: unknown"),
        column("made_from", pa.uint64(), "what image, references and mask were encoded from; null: unknown"),
        *RIGHTS,
    ]
)

# Ledgers (append-only Delta tables) ---------------------------------------------------------------------------------
LEDGERS: dict[str, pa.Schema] = {
    "snapshots": pa.schema(
        [
            column("snapshot", pa.string(), "id: digest of pool shards, policy and scorer versions"),
            column("policy", pa.string(), "name of the policy"),
            column("manifest", pa.string(), "workspace path of the shard manifest"),
            column("input", pa.int64(), "input rows: admitted + dropped + quarantined"),
            column("admitted", pa.int64(), "rows in at least one stage's shards"),
            column("dropped", pa.int64(), "rows that a filter dropped"),
            column("quarantined", pa.int64(), "rows that could not be read or scored"),
            column("at", pa.timestamp("us", "UTC"), "when it became the latest"),
        ]
    ),
    "signals": pa.schema(
        [
            column("signal_id", pa.string(), "digest of checkpoint, prompt and check"),
            column("round", pa.int32(), "round whose evaluation produced it; null for what comes from elsewhere"),
            column("arm", pa.string(), "'candidate' or 'control'; null for what comes from elsewhere"),
            column("checkpoint", pa.string(), "checkpoint or model that made the picture"),
            column("kind", pa.string(), "evaluation | mining | feedback | arena"),
            column("prompt_id", pa.string(), "prompt that was sampled"),
            column("prompt", pa.large_string(), "the prompt's text"),
            column("task", pa.string(), "t2i | ti2i"),
            column("verifier", pa.string(), "check that judged the image"),
            column("capability", pa.string(), "what the check tests; null: routing tells it from the evidence"),
            column("passed", pa.bool_(), "did the image pass"),
            column("score", pa.float64(), "the verifier's value"),
            column("threshold", pa.float64(), "value needed to pass"),
            column("evidence", pa.large_string(), "JSON: what the verifier saw and expected"),
            column("image", pa.string(), "workspace path of the judged image"),
            column("at", pa.timestamp("us", "UTC"), "when it was recorded"),
        ]
    ),
    "case_events": pa.schema(
        [
            column("event_id", pa.string(), "digest of case, round and kind: an event is recorded once"),
            column("case_id", pa.string(), "digest of prompt and capability"),
            column("round", pa.int32(), "round in which it happened"),
            column("kind", pa.string(), "seen | detected | routed | reviewed | remedied | passed | failed | dismissed"),
            column("capability", pa.string(), "what failed"),
            column("track", pa.string(), "rl | pretraining | prompt_enhancement | human | unsure; null before routing"),
            column("prompt_id", pa.string(), "prompt that shows the failure"),
            column("prompt", pa.large_string(), "the prompt's text"),
            column("evidence", pa.large_string(), "JSON: why"),
            column("at", pa.timestamp("us", "UTC"), "when it was recorded"),
        ]
    ),
    "probes": pa.schema(
        [
            column("probe_id", pa.string(), "digest of case, checkpoint and attempt"),
            column("case_id", pa.string(), "case that was experimented on"),
            column("prompt_id", pa.string(), "its prompt"),
            column("capability", pa.string(), "its capability"),
            column("round", pa.int32(), "round of the experiment"),
            column("checkpoint", pa.string(), "checkpoint that was sampled"),
            column("seeds", pa.int32(), "further seeds of the prompt as it is"),
            column("seeds_passed", pa.int32(), "of those, how many pass"),
            column("enhanced", pa.large_string(), "the enhanced prompt; null where the enhancer changes nothing"),
            column("enhanced_seeds", pa.int32(), "seeds of the enhanced prompt"),
            column("enhanced_passed", pa.int32(), "of those, how many pass"),
            column("density", pa.float64(), "percentile of the pool's own density around the prompt"),
            column("folder", pa.string(), "workspace path of the pictures"),
            column("at", pa.timestamp("us", "UTC"), "when it was recorded"),
        ]
    ),
    "battles": pa.schema(
        [
            column("battle_id", pa.string(), "id of the vote: one is recorded once"),
            column("capability", pa.string(), "capability that the battle is about"),
            column("prompt", pa.large_string(), "the prompt's text"),
            column("model_a", pa.string(), "name of one model"),
            column("model_b", pa.string(), "name of the other"),
            column("winner", pa.string(), "model_a | model_b | tie | tie (bothbad)"),
            column("style_a", pa.large_string(), "JSON {covariate: number} of model_a's picture; null without"),
            column("style_b", pa.large_string(), "JSON {covariate: number} of model_b's picture; null without"),
            column("judge", pa.string(), "who voted"),
            column("at", pa.timestamp("us", "UTC"), "when it was recorded"),
        ]
    ),
    "human_verdicts": pa.schema(
        [
            column("verdict_id", pa.string(), "digest of signal, picture, person and version: one is recorded once"),
            column("signal_id", pa.string(), "verifier's verdict that a person judged as well"),
            column("image", pa.string(), "workspace path of the judged picture"),
            column("prompt_id", pa.string(), "its prompt"),
            column("checkpoint", pa.string(), "checkpoint or model that made it"),
            column("verifier", pa.string(), "check that judged it"),
            column("capability", pa.string(), "what the check tests"),
            column("machine", pa.bool_(), "did it pass, in the verifier's view"),
            column("passed", pa.bool_(), "did it pass, in the person's view; null: the person could not tell"),
            column("blind", pa.bool_(), "the person had not seen the verifier's verdict"),
            column("reviewer", pa.string(), "who judged"),
            column("why", pa.large_string(), "the reason given; empty without one"),
            column("at", pa.timestamp("us", "UTC"), "when it was recorded"),
        ]
    ),
    "rounds": pa.schema(
        [
            column("round", pa.int32(), "number, from 1"),
            column("verdict", pa.string(), "PROMOTE | HOLD | REJECT"),
            column("checkpoint", pa.string(), "workspace path of the candidate"),
            column("incumbent", pa.string(), "checkpoint it was compared with; null in the first round"),
            column("snapshot", pa.string(), "data snapshot it was trained on"),
            column("result", pa.large_string(), "JSON: rates, gate lines, fixed and broken cases"),
            column("at", pa.timestamp("us", "UTC"), "when the verdict was given"),
        ]
    ),
    "promotions": pa.schema(
        [
            column("decision", pa.string(), "digest of its number: a decision is recorded once"),
            column("kind", pa.string(), "promote | reject | rollback, by a person; the gate's own are in rounds"),
            column("round", pa.int32(), "round whose candidate it is about"),
            column("checkpoint", pa.string(), "workspace path of that candidate"),
            column("by", pa.string(), "who decided"),
            column("why", pa.large_string(), "the reason given"),
            column("at", pa.timestamp("us", "UTC"), "when it was decided"),
        ]
    ),
    "reviews": pa.schema(
        [
            column("event_id", pa.string(), "digest of item, slot and version: an event is recorded once"),
            column("item", pa.string(), "digest of round, capability and sample"),
            column("round", pa.int32(), "round that asked for the sample"),
            column("capability", pa.string(), "capability that it serves"),
            column("sample_id", pa.string(), "sample under review"),
            column("kind", pa.string(), "queued | claimed | accepted | rejected"),
            column("slot", pa.int32(), "which of the item's reviews, from 0; null for queued"),
            column("version", pa.int32(), "place in the slot's history, from 1; null for queued"),
            column("reviewer", pa.string(), "who; 'auto-approve' for unattended runs; null for queued"),
            column("priority", pa.float64(), "queued: uncertainty in [0, 1], the largest is reviewed first"),
            column("caption", pa.large_string(), "queued: as proposed; accepted: as edited, null when left alone"),
            column("evidence", pa.large_string(), "JSON: why it was queued, until when it is claimed, why rejected"),
            column("at", pa.timestamp("us", "UTC"), "when it happened"),
        ]
    ),
    "runs": pa.schema(
        [
            column("version", pa.int32(), "place in the workspace's history of runs, from 1"),
            column("kind", pa.string(), "acquired | released | stop: somebody asked it to stop"),
            column("host", pa.string(), "machine that runs"),
            column("pid", pa.int32(), "its process"),
            column("started", pa.float64(), "start of that process, seconds since the epoch: pids are used again"),
            column("job", pa.large_string(), "JSON: what the run was asked for; stop: by whom, and why"),
            column("at", pa.timestamp("us", "UTC"), "when it happened"),
        ]
    ),
    "exports": pa.schema(
        [
            column("export_id", pa.string(), "digest of kind, place and request: an export is recorded once"),
            column("kind", pa.string(), "shards | tables"),
            column("place", pa.string(), "folder or file that was written: absolute, or in the workspace"),
            column("host", pa.string(), "machine that wrote it"),
            column("request", pa.large_string(), "JSON: what was asked for"),
            column("at", pa.timestamp("us", "UTC"), "when it was begun"),
        ]
    ),
    "erasures": pa.schema(
        [
            column("erasure_id", pa.string(), "digest of picture and erasure: one is recorded once"),
            column("erasure", pa.string(), "the call of `flywheel erase` that erased it"),
            column("image_id", pa.string(), "SHA-256 of the picture's bytes, which no ingest takes again"),
            column("sample_ids", pa.list_(pa.string()), "rows of the pool that had it as picture or as reference"),
            column("blobs", pa.list_(pa.string()), "SHA-256 of everything that was made of it: no file may have them"),
            column("asked", pa.large_string(), "what was asked for: id, file or address"),
            column("by", pa.string(), "who asked for it"),
            column("why", pa.large_string(), "the reason given"),
            column("checkpoints", pa.list_(pa.string()), "workspace paths of the checkpoints that were trained on it"),
            column("at", pa.timestamp("us", "UTC"), "when it was recorded, before anything was removed"),
        ]
    ),
    "tag_events": pa.schema(
        [
            column("event_id", pa.string(), "digest of request and sample: an event is recorded once"),
            column("sample_id", pa.string(), "sample of the pool"),
            column("tag", pa.string(), "the tag"),
            column("kind", pa.string(), "added | removed"),
            column("by", pa.string(), "who did it"),
            column("at", pa.timestamp("us", "UTC"), "when it was recorded"),
        ]
    ),
    "costs": pa.schema(
        [
            column("cost_id", pa.string(), "digest of run, round and step: a cost is recorded once"),
            column("round", pa.int32(), "round that caused it; 0 for ingest and curation"),
            column("step", pa.string(), "step that finished; what a killed run spent in an unfinished one is not here"),
            column("units", pa.int64(), "samples, optimiser steps or images that it worked on"),
            column("wall_seconds", pa.float64(), "elapsed"),
            column("cpu_seconds", pa.float64(), "of the process and everything that it started"),
            column("gpu_seconds", pa.float64(), "elapsed times visible GPUs"),
            column("at", pa.timestamp("us", "UTC"), "when the step ended"),
        ]
    ),
}
