"""Blind pairs for the arena: two checkpoints' images of one prompt on random sides, shown once to each judge.

The id of a battle is a digest of judge, prompt and checkpoints. The digest also decides the order of prompts and the
sides, so that nothing has to be stored between showing a pair and its vote, and the id reveals nothing to the judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from flywheel.core.lens import connect
from flywheel.core.text import person
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
    """What a judge sees: `model_a` is on the left."""

    battle_id: str
    prompt_id: str
    prompt: str
    task: str
    capability: str  # 'overall' if the prompt tests several
    model_a: str
    model_b: str
    image_a: str  # workspace paths
    image_b: str


def contestants(workspace: Workspace) -> list[str]:
    """Checkpoints with images of evaluation prompts, those of the latest round first."""
    with closing(connect(workspace, ["signals"])) as con:
        rows = con.execute(
            "SELECT checkpoint FROM signals WHERE kind = 'evaluation' AND image IS NOT NULL AND checkpoint IS NOT NULL"
            " GROUP BY checkpoint ORDER BY max(round) DESC, checkpoint"
        ).fetchall()
    return [name for (name,) in rows]


def next_pair(workspace: Workspace, judge: str, checkpoint_a: str, checkpoint_b: str) -> Pair | None:
    """A pair of the two checkpoints' images that this judge has not voted on yet, or None."""
    unseen = "ANTI JOIN battles USING (battle_id) ORDER BY battle_id LIMIT 1"
    return _pair(workspace, judge, (checkpoint_a, checkpoint_b), unseen)


def find_pair(workspace: Workspace, judge: str, checkpoint_a: str, checkpoint_b: str, battle_id: str) -> Pair | None:
    """The pair that this judge was shown under an id; None if they were shown no such pair."""
    return _pair(workspace, judge, (checkpoint_a, checkpoint_b), "WHERE battle_id = $battle", {"battle": battle_id})


def _pair(
    workspace: Workspace,
    judge: str,
    checkpoints: tuple[str, str],
    which: str,
    values: Mapping[str, str] | None = None,
) -> Pair | None:
    """The first of all pairs after the SQL clause `which`, or None."""
    first, second = sorted(checkpoints)
    parameters = {"judge": person(judge), "first": first, "second": second, **(values or {})}
    with closing(connect(workspace, ["signals", "battles"])) as con:
        rows = con.execute(f"FROM ({_PAIRS}) {which}", parameters).fetchall()
    if not rows:
        return None
    battle_id, prompt_id, prompt, task, capability, first_is_left, first_image, second_image = rows[0]
    sides = [(first, first_image), (second, second_image)]
    (model_a, image_a), (model_b, image_b) = sides if first_is_left else sides[::-1]
    return Pair(battle_id, prompt_id, prompt, task, capability, model_a, model_b, image_a, image_b)
