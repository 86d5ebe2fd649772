"""Bad-case mining: signals of kind `mining` from judgements of a model's own samples, in one DuckDB query.

A judgement is one verdict on one image: {prompt_id, prompt, task, capability, checkpoint, seed, verifier, score,
threshold, image}, as training writes for its samples and roll-outs. Four kinds of bad cases are mined, named by the
signal's `verifier`: prompts that fail for every seed (`self`), prompts whose seeds disagree (`seeds`), images whose
judges disagree (`judges`), and passes by less than a margin (`margin`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from flywheel.core.errors import UsageError
from flywheel.core.files import digest, file_digest, given_file
from flywheel.core.ledger import Ledger
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace

COLUMNS = ("prompt_id", "prompt", "capability", "checkpoint", "seed", "verifier", "score", "threshold")
_OPTIONAL = {"task": "'t2i'", "image": "NULL"}


@dataclass(frozen=True, kw_only=True)
class Mining:
    """Thresholds of mining."""

    margin: float = 0.05  # passes by less than this share of the verifier's threshold are bad cases
    disagreement: float = 0.5  # bad from this disagreement of an image's judges: 0 all agree, 1 they split evenly
    min_seeds: int = 2  # fewer seeds cannot disagree


_QUERY = """
WITH verdicts AS (
    SELECT *, score >= threshold AS passed, (score - threshold) / greatest(abs(threshold), 1e-9) AS margin FROM judged
    WHERE score IS NOT NULL AND threshold IS NOT NULL
),
pictures AS (
    SELECT prompt_id, capability, checkpoint, seed, any_value(prompt) AS prompt, any_value(task) AS task,
           min(image) AS image, bool_and(passed) AS passed, count(DISTINCT verifier) AS judges,
           least(avg(passed::INT), 1 - avg(passed::INT)) * 2 AS dissent, min(margin) AS margin,
           list(DISTINCT verifier ORDER BY verifier) AS verifiers
    FROM verdicts GROUP BY ALL
),
prompts AS (
    SELECT prompt_id, capability, checkpoint, any_value(prompt) AS prompt, any_value(task) AS task,
           count(*) AS seeds, count(*) FILTER (passed) AS good, min(image) FILTER (NOT passed) AS image,
           list(seed ORDER BY seed) FILTER (NOT passed) AS failed
    FROM pictures GROUP BY prompt_id, capability, checkpoint
),
bad_cases AS (
    SELECT prompt_id, capability, checkpoint, prompt, task, image, 'self' AS verifier, 0.0 AS score, 1.0 AS threshold,
           json_object('seeds', seeds, 'seeds_passed', 0) AS evidence
    FROM prompts WHERE good = 0
    UNION ALL
    SELECT prompt_id, capability, checkpoint, prompt, task, image, 'seeds', good / seeds, 1.0,
           json_object('seeds', seeds, 'seeds_passed', good, 'failed_seeds', failed)
    FROM prompts WHERE good BETWEEN 1 AND seeds - 1 AND seeds >= $min_seeds
    UNION ALL
    SELECT prompt_id, capability, checkpoint, any_value(prompt), any_value(task), min(image), 'judges',
           1 - max(dissent), 1 - $disagreement,
           json_object('pictures', count(*), 'judges', any_value(verifiers), 'dissent', max(dissent))
    FROM pictures WHERE judges > 1 AND dissent >= $disagreement GROUP BY prompt_id, capability, checkpoint
    UNION ALL
    SELECT prompt_id, capability, checkpoint, any_value(prompt), any_value(task), arg_min(image, margin), 'margin',
           min(margin), $margin, json_object('pictures', count(*), 'margin', min(margin))
    FROM pictures WHERE passed AND margin < $margin GROUP BY prompt_id, capability, checkpoint
)
SELECT substr(sha256(json_array('mining', $batch, prompt_id, capability, checkpoint, verifier)::VARCHAR), 1, 32)
           AS signal_id,
       NULL::INTEGER AS round, NULL::VARCHAR AS arm, checkpoint, 'mining' AS kind, prompt_id, prompt, task, verifier,
       capability, false AS passed, score::DOUBLE AS score, threshold::DOUBLE AS threshold,
       evidence::VARCHAR AS evidence, image, now() AS at
FROM bad_cases ORDER BY signal_id
"""


def mine(judged: pa.Table, settings: Mining, *, batch: str) -> pa.Table:
    """Signals from a table of judgements. Errors: `UsageError` naming missing columns."""
    import duckdb

    if missing := [c for c in COLUMNS if c not in judged.column_names]:
        raise UsageError(f"judgements need the columns {', '.join(COLUMNS)}: {', '.join(missing)} missing")
    extra = ", ".join(f"{value} AS {name}" for name, value in _OPTIONAL.items() if name not in judged.column_names)
    con = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    try:
        con.register("judgements", judged)
        con.execute(f"CREATE TEMP VIEW judged AS SELECT *{', ' + extra if extra else ''} FROM judgements")
        values: Mapping[str, Any] = {**vars(settings), "batch": batch}
        return con.sql(_QUERY, params=values).to_arrow_table()
    except duckdb.ConversionException as error:
        raise UsageError(f"judgements have a value of the wrong type: {error}") from error
    finally:
        con.close()


def mine_file(workspace: Workspace, path: Path, settings: Mining) -> dict[str, int]:
    """Mine a Parquet or JSON Lines file of judgements, once, into the ledger; returns counts by kind of bad case."""
    path = given_file(path, "a Parquet or JSON Lines file of judgements")
    judgements, ledger = read_judgements(path), Ledger(workspace, "signals")
    batch = digest(file_digest(path), vars(settings))[:32]
    if ledger.has(f"mining/{batch}"):
        return {}
    signals = mine(judgements, settings, batch=batch)
    ledger.append(signals, key=f"mining/{batch}")
    return dict(Counter(signals["verifier"].to_pylist()))


def read_judgements(path: Path) -> pa.Table:
    """The table of judgements in a file. Errors: `UsageError` if it cannot be read."""
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    try:
        return pq.read_table(readable(path)) if path.suffix == ".parquet" else pj.read_json(readable(path))
    except pa.ArrowException as error:
        raise UsageError(f"{path} cannot be read as judgements: {error}") from error
