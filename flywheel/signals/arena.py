"""Pairwise battles: votes on two models' images of one prompt, imported into a ledger; a lost battle is a signal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flywheel.core.files import digest, file_digest, given_file
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.feedback import Imported, one_at_a_time, read_rows, why, write_quarantine
from flywheel.signals.ratings import Battles

Winner = Literal["model_a", "model_b", "tie", "tie (bothbad)"]
Covariate = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # their sum is divided by


class Battle(BaseModel):
    """One vote. `style_a`, `style_b`: covariates of the two images (size, text length, …) that may sway a judge."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)  # "m1 " is m1
    battle_id: str = Field(min_length=1, max_length=200)
    model_a: str = Field(min_length=1)
    model_b: str = Field(min_length=1)
    winner: Winner
    capability: str = "overall"
    prompt: str = ""
    task: Literal["t2i", "ti2i"] = "t2i"
    judge: str | None = None
    style_a: dict[str, Covariate] | None = None
    style_b: dict[str, Covariate] | None = None
    image_a: str | None = None
    image_b: str | None = None

    @model_validator(mode="after")
    def _fair(self) -> Battle:
        if self.model_a == self.model_b:
            raise ValueError("a model cannot battle itself")
        if (self.style_a or {}).keys() != (self.style_b or {}).keys():
            raise ValueError("style_a and style_b need the same covariates")
        return self


def import_battles(workspace: Workspace, path: Path, *, model: str | None = None) -> Imported:
    """Import a JSON Lines or Parquet file of battles, each once. Battles that `model` lost, or both, become signals."""
    path = given_file(path, "a JSON Lines or Parquet file, one battle per row")
    battles: list[Battle] = []
    bad: list[dict[str, Any]] = []
    for number, row in enumerate(read_rows(path), 1):
        try:
            battles.append(Battle.model_validate_json(row) if isinstance(row, str) else Battle.model_validate(row))
        except ValidationError as error:
            bad.append({"row": number, "reason": why(error), "content": row if isinstance(row, str) else repr(row)})
    name = file_digest(path)
    ledger = Ledger(workspace, "battles")
    with one_at_a_time(workspace):
        key = f"battles/{name}"
        known = set() if ledger.has(key) else {r["battle_id"] for r in ledger.rows()}
        new = {b.battle_id: b for b in reversed(battles) if b.battle_id not in known}
        fresh = 0 if ledger.has(key) else len(new)
        signals = [signal(b, model) for b in new.values() if model and b.prompt and _lost(b, model)]
        if signals:
            Ledger(workspace, "signals").append(signals, key=f"{key}/signals/{model}")
        ledger.append([_row(b) for b in new.values()], key=key)
    return Imported(fresh, len(battles) - fresh, len(bad), write_quarantine(workspace, name, bad))


def vote(workspace: Workspace, battle: Battle, *, model: str | None = None) -> bool:
    """Record one vote; False if it was recorded already. A battle that `model` lost becomes a signal."""
    key = f"battles/vote/{battle.battle_id}"
    if model and battle.prompt and _lost(battle, model):
        Ledger(workspace, "signals").append([signal(battle, model)], key=f"{key}/signals")
    return Ledger(workspace, "battles").append([_row(battle)], key=key)


def _lost(battle: Battle, model: str) -> bool:
    opponent = {battle.model_a: "model_b", battle.model_b: "model_a"}.get(model)
    return opponent is not None and battle.winner in (opponent, "tie (bothbad)")


def signal(battle: Battle, model: str) -> dict[str, Any]:
    """A battle that `model` lost, as a signal about its image."""
    side, opponent = ("a", battle.model_b) if battle.model_a == model else ("b", battle.model_a)
    evidence = {"battle_id": battle.battle_id, "winner": battle.winner, "against": opponent}
    return {
        "signal_id": digest("arena", battle.battle_id, model)[:32],
        "kind": "arena",
        "checkpoint": model,
        "prompt_id": f"user-{digest(battle.task, battle.prompt)[:16]}",
        "prompt": battle.prompt,
        "task": battle.task,
        "verifier": "arena",
        "capability": None if battle.capability == "overall" else battle.capability,
        "passed": False,
        "score": 0.0,
        "threshold": 0.5,
        "evidence": json.dumps(evidence, ensure_ascii=False),
        "image": getattr(battle, f"image_{side}"),
    }


def _row(battle: Battle) -> dict[str, Any]:
    row = battle.model_dump(include={"battle_id", "capability", "prompt", "model_a", "model_b", "winner", "judge"})
    return row | {k: json.dumps(v) if (v := getattr(battle, k)) else None for k in ("style_a", "style_b")}


def battles(rows: Iterable[Mapping[str, Any]], *, styles: bool = False) -> dict[str, Battles]:
    """Battles by capability, and all of them as `overall`.

    With `styles`, only battles with covariates: of several sets of them, those with the set that most battles have.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in _of_one_style(rows) if styles else rows:
        for name in {"overall", row["capability"]}:
            groups.setdefault(name, []).append(row)
    return {name: Battles.of(group, styles=styles) for name, group in sorted(groups.items())}


def _of_one_style(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    by_names: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        sides = [json.loads(row[k]) for k in ("style_a", "style_b") if row[k]]
        if len(sides) == 2 and all(0 <= v < inf for side in sides for v in side.values()):
            by_names.setdefault(tuple(sorted(sides[0])), []).append(row)
    return max(by_names.values(), key=len, default=[])
