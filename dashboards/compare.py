"""Two evaluations side by side: pictures of one prompt and seed, and each verdict on them, before and after.

What a page does not show stays in DuckDB: a million verdicts are joined and counted there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboards.rows import Row, evidence, rows
from flywheel.signals import hidden
from flywheel.signals.human_verdicts import annotated
from flywheel.signals.suite import JUDGED

if TYPE_CHECKING:
    import duckdb

CHANGES = ("broken", "fixed", "unjudged", "same")  # of a pair of pictures, in the order in which they are shown
SHOWN = ("changed", *CHANGES, "all")

# Evaluations of rounds, and, outside of them, one of each system whose pictures were judged.
_NAME = "CASE WHEN round IS NULL OR arm IS NULL THEN checkpoint ELSE round || '-' || arm END"
# Hidden prompts are compared by their rates alone: what people look at, they chase.
_KNOWN = f"""
SELECT any_value(round) AS round, any_value(arm) AS arm, any_value(checkpoint) AS checkpoint, count(*) AS verdicts
FROM signals WHERE kind = 'evaluation' AND {_NAME} IS NOT NULL AND arm IS DISTINCT FROM '{hidden.ARM}'
GROUP BY {_NAME} ORDER BY round DESC NULLS LAST, arm, max("at") DESC, checkpoint
"""

# The seed of a picture is in its path. A question has as many verdicts on a picture as it is asked in different words.
_VERDICTS = f"""
SELECT signal_id, prompt_id, verifier, capability, passed, score, threshold, evidence, image, prompt,
       {_NAME} = $after AS later,
       coalesce(try_cast(regexp_extract(image, '/seed-([0-9]+)/[^/]+$', 1) AS INTEGER), 0) AS seed,
       CASE WHEN verifier IN {JUDGED} THEN evidence->>'question' END AS question
FROM signals
WHERE kind = 'evaluation' AND image IS NOT NULL
      AND {_NAME} IN ($before, $after)
      AND ($capability = '' OR capability = $capability)
"""

_PAIRS = f"""
CREATE OR REPLACE TEMP TABLE pairs AS
WITH verdicts AS ({_VERDICTS}), paired AS (
    SELECT prompt_id, seed, any_value(passed) FILTER (NOT later) AS before, any_value(passed) FILTER (later) AS after
    FROM verdicts GROUP BY prompt_id, seed, verifier, capability, question
)
SELECT prompt_id, seed, CASE
    WHEN bool_or(before AND NOT after) THEN 'broken' WHEN bool_or(after AND NOT before) THEN 'fixed'
    WHEN bool_or((before IS NULL) <> (after IS NULL)) THEN 'unjudged' ELSE 'same' END AS change
FROM paired GROUP BY prompt_id, seed
"""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: its round and arm (None outside of rounds), its checkpoint or system, its number of verdicts."""

    round: int | None
    arm: str | None
    checkpoint: str | None
    verdicts: int

    @property
    def name(self) -> str:
        """As in the addresses of pages: `2-candidate`; the system's own name outside of rounds."""
        return self.checkpoint or "" if self.round is None or self.arm is None else f"{self.round}-{self.arm}"

    @property
    def label(self) -> str:
        """For people."""
        return self.name if self.round is None or self.arm is None else f"round {self.round}, {self.arm}"


@dataclass(frozen=True)
class Judged:
    """A verifier's verdict on one picture, and what people said of it."""

    signal_id: str
    image: str
    passed: bool | None
    score: float | None
    threshold: float | None
    evidence: Row
    people: Sequence[Row]  # {passed, reviewer, why, blind}


@dataclass(frozen=True)
class Verdict:
    """One check before and after; None where an evaluation has no picture, or does not have this check."""

    verifier: str
    capability: str
    question: str | None
    change: str  # one of CHANGES
    before: Judged | None
    after: Judged | None


@dataclass(frozen=True)
class Pair:
    """The pictures of one prompt and seed. change: the worst of its verdicts; images: workspace paths."""

    prompt_id: str
    prompt: str
    seed: int
    change: str
    before_image: str | None
    after_image: str | None
    verdicts: Sequence[Verdict]


def evaluations(con: duckdb.DuckDBPyConnection) -> list[Evaluation]:
    """Every evaluation: those of rounds, newest first, then those of other systems, last judged first."""
    return [Evaluation(**r) for r in rows(con, _KNOWN)]


def proposed(known: Sequence[Evaluation], incumbents: Mapping[int, str | None], other: str = "") -> tuple[str, str]:
    """Names of the evaluations to compare where nobody chose: its incumbent, and `other` or else the newest candidate,
    or without any the system that was judged last.

    incumbents: {round: checkpoint that its candidate was compared with}.
    """
    candidates = [e for e in known if e.arm == "candidate"]
    after = next((e for e in known if e.name == other), None) if other else next(iter((*candidates, *known)), None)
    if after is None:
        return "", other
    incumbent = None if after.round is None else incumbents.get(after.round)
    earlier = [e for e in candidates if e != after and e.checkpoint == incumbent]
    return next((e.name for e in (*earlier, *known) if e != after), ""), after.name


def capabilities(con: duckdb.DuckDBPyConnection, before: Evaluation, after: Evaluation) -> list[str]:
    """Capabilities that either evaluation judges."""
    sql = """SELECT DISTINCT capability FROM signals WHERE kind = 'evaluation' AND capability IS NOT NULL
             AND {name} IN (?, ?) ORDER BY capability"""
    return [r["capability"] for r in rows(con, sql.format(name=_NAME), [before.name, after.name])]


def compare(
    con: duckdb.DuckDBPyConnection,
    before: Evaluation,
    after: Evaluation,
    *,
    capability: str = "",
    show: str = "changed",
    limit: int,
    offset: int = 0,
) -> tuple[dict[str, int], list[Pair]]:
    """({change: number of pairs of pictures}, one page of those to show), broken ones first, then fixed ones."""
    chosen = {"before": before.name, "after": after.name, "capability": capability}
    con.execute(_PAIRS, chosen)
    counted = {r["change"]: r["n"] for r in rows(con, "SELECT change, count(*) AS n FROM pairs GROUP BY change")}
    shown = CHANGES[:2] if show == "changed" else CHANGES if show == "all" else (show,)
    order = f"list_position({list(CHANGES)}, change)"
    page = f"""SELECT * FROM pairs WHERE list_contains(?, change)
               ORDER BY {order}, prompt_id, seed LIMIT ? OFFSET ?"""
    listed = rows(con, page, [list(shown), limit, offset])
    prompts = sorted({p["prompt_id"] for p in listed})
    verdicts = f"SELECT * FROM ({_VERDICTS}) WHERE list_contains($prompts::VARCHAR[], prompt_id) ORDER BY ALL"
    found = con.execute(verdicts, chosen | {"prompts": prompts})
    names = [column[0] for column in found.description or ()]
    judged: dict[tuple[str, int], list[Row]] = {}
    for row in (dict(zip(names, r)) for r in found.fetchall()):
        judged.setdefault((row["prompt_id"], row["seed"]), []).append(row)
    said = annotated(con, sorted({r["image"] for group in judged.values() for r in group}))
    pairs = [_pair(p, judged[p["prompt_id"], p["seed"]], said) for p in listed]
    return {change: counted.get(change, 0) for change in CHANGES}, pairs


def _pair(pair: Row, judged: Sequence[Row], said: Mapping[tuple[str, str], Sequence[Row]]) -> Pair:
    checks: dict[tuple[str, str, str | None], dict[bool, Judged]] = {}
    images: dict[bool, str] = {}
    for row in judged:
        parsed = {k: row[k] for k in ("signal_id", "image", "passed", "score", "threshold")}
        people = said.get((row["signal_id"], row["image"]), [])
        one = Judged(**parsed, evidence=evidence(row["evidence"]), people=people)
        checks.setdefault((row["verifier"], row["capability"], row["question"]), {})[row["later"]] = one
        images.setdefault(row["later"], row["image"])
    verdicts = [_verdict(key, sides.get(False), sides.get(True)) for key, sides in checks.items()]
    verdicts.sort(key=lambda v: (CHANGES.index(v.change), v.verifier, v.capability))
    about = {"prompt_id": pair["prompt_id"], "prompt": judged[0]["prompt"] or "", "seed": pair["seed"]}
    return Pair(**about, change=pair["change"], before_image=images.get(False), after_image=images.get(True),
                verdicts=verdicts)  # fmt: skip


def _verdict(check: tuple[str, str, str | None], before: Judged | None, after: Judged | None) -> Verdict:
    old, new = (x.passed if x else None for x in (before, after))
    if old is None or new is None:
        change = "same" if old is new else "unjudged"
    else:
        change = "same" if old == new else "fixed" if new else "broken"
    verifier, capability, question = check
    return Verdict(verifier, capability, question, change, before, after)
