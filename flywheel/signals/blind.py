"""Blind pairs for the arena: two checkpoints' pictures of one prompt, their sides drawn by lot, each judge once.

A battle's id is a digest of judge, prompt and checkpoints. It draws the order of prompts and the sides too, so nothing
about a pair has to be kept between showing it and the vote, and the id tells the judge nothing.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from flywheel.core.lens import connect
from flywheel.core.workspace import Workspace

_PAIRS = """
WITH pictures AS (
    SELECT prompt_id, checkpoint, any_value(prompt) AS prompt, any_value(task) AS task, min(image) AS image,
           CASE WHEN count(DISTINCT capability) = 1 THEN min(capability) ELSE 'overall' END AS capability
    FROM signals WHERE checkpoint IN ($first, $second) AND kind = 'evaluation' AND image IS NOT NULL GROUP BY ALL
), pairs AS (
    SELECT sha256(json_array($judge::VARCHAR, a.prompt_id, $first, $second)::VARCHAR)[:32] AS battle_id, prompt_id,
           a.prompt, a.task, a.capability, a.image AS first, b.image AS second
    FROM pictures a JOIN pictures b USING (prompt_id) WHERE a.checkpoint = $first AND b.checkpoint = $second
)
SELECT battle_id, prompt_id, prompt, task, capability, battle_id[-1:] < '8' AS first_is_left, first, second FROM pairs
"""


@dataclass(frozen=True)
class Pair:
    """What one judge sees: model_a is on the left."""

    battle_id: str
    prompt_id: str
    prompt: str
    task: str
    capability: str  # 'overall' where the prompt tests several
    model_a: str
    model_b: str
    image_a: str  # workspace paths
    image_b: str


def contestants(workspace: Workspace) -> list[str]:
    """Checkpoints with pictures of evaluation prompts, those of the latest round first."""
    with closing(connect(workspace, ["signals"])) as con:
        found = con.execute(
            "SELECT checkpoint FROM signals WHERE kind = 'evaluation' AND image IS NOT NULL AND checkpoint IS NOT NULL"
            " GROUP BY checkpoint ORDER BY max(round) DESC, checkpoint"
        ).fetchall()
    return [name for (name,) in found]


def next_pair(workspace: Workspace, judge: str, one: str, other: str) -> Pair | None:
    """A pair of the two checkpoints' pictures that this judge has not voted on; None when there is none left."""
    return _pair(workspace, judge, one, other, "ANTI JOIN battles USING (battle_id) ORDER BY battle_id LIMIT 1")


def find_pair(workspace: Workspace, judge: str, one: str, other: str, battle_id: str) -> Pair | None:
    """The pair that this judge was shown under an id; None when they were shown no such pair."""
    return _pair(workspace, judge, one, other, "WHERE battle_id = $battle", {"battle": battle_id})


def _pair(
    workspace: Workspace, judge: str, one: str, other: str, which: str, more: dict[str, Any] | None = None
) -> Pair | None:
    first, second = sorted((one, other))
    with closing(connect(workspace, ["signals", "battles"])) as con:
        values = {"judge": judge, "first": first, "second": second, **(more or {})}
        found = con.execute(f"FROM ({_PAIRS}) {which}", values).fetchall()
    if not found:
        return None
    *about, first_is_left, first_image, second_image = found[0]
    sides = [(first, first_image), (second, second_image)]
    (model_a, image_a), (model_b, image_b) = sides if first_is_left else sides[::-1]
    return Pair(*about, model_a, model_b, image_a, image_b)
