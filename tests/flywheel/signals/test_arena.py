"""Ratings equal the logistic regression that FastChat's arena publishes; votes count once."""

import json
from pathlib import Path

import numpy as np

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.arena import battles, import_battles


def world(count: int, *, styles: bool = False, seed: int = 0) -> list[dict]:
    """Battles of five models whose true strengths are 0, 0.5, … 2 (log-odds); a longer picture sways the judge."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        a, b = rng.choice(5, 2, replace=False)
        sizes = rng.integers(1, 50, 2)
        logit = 0.5 * (a - b) + (2.0 * (sizes[0] - sizes[1]) / sizes.sum() if styles else 0)
        winner = "tie" if rng.random() < 0.2 else ("model_a" if rng.random() < 1 / (1 + np.exp(-logit)) else "model_b")
        row = {"battle_id": str(n), "model_a": f"m{a}", "model_b": f"m{b}", "winner": winner, "capability": "text"}
        style = {f"style_{k}": json.dumps({"size": int(s), "text": int(s % 7)}) for k, s in zip("ab", sizes)}
        rows.append(row | (style if styles else {"style_a": None, "style_b": None}))
    return rows


def test_an_odd_battle_costs_itself(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    styled = [{**r, **{k: json.loads(r[k]) for k in ("style_a", "style_b")}} for r in world(60, styles=True)]
    odd = [styled[0] | {"battle_id": f"odd {v}", "style_a": {"size": v, "text": 1}} for v in (float("nan"), 1e999, -1)]
    other = styled[0] | {"battle_id": "other", "style_a": {"length": 1}, "style_b": {"length": 2}}
    spaced = styled[0] | {"battle_id": "spaced", "model_a": f" {styled[0]['model_a']} "}
    empty = styled[0] | {"battle_id": " "}
    path = tmp_path / "b.jsonl"
    path.write_text("\n".join(map(json.dumps, [*styled, *odd, other, spaced, empty])))
    imported = import_battles(workspace, path)
    assert (imported.imported, imported.quarantined) == (62, 4)
    rows = Ledger(workspace, "battles").rows()
    old = rows[0] | {"style_a": '{"size": NaN, "text": 1.0}'}  # as versions before recorded it
    assert len(battles([*rows, old], styles=True)["overall"].outcomes) == 61
    assert battles(rows)["overall"].models == ("m0", "m1", "m2", "m3", "m4")
    assert battles([rows[0] | {"style_a": None}], styles=True) == {}


def test_imported_votes_count_once_and_lost_ones_are_signals(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    vote = {"battle_id": "1", "model_a": "ours", "model_b": "theirs", "winner": "model_b", "prompt": "a cat"}
    votes = [vote | {"capability": "typography"}, vote | {"battle_id": "2", "winner": "model_a"}, vote]
    votes += [vote | {"battle_id": "3", "winner": "tie (bothbad)"}, vote | {"battle_id": "4", "winner": "tie"}]
    votes += [vote | {"model_b": "ours", "battle_id": "5"}, vote | {"battle_id": "6", "winner": "ours"}]
    path = tmp_path / "b.jsonl"
    path.write_text("\n".join(map(json.dumps, votes)))
    imported = import_battles(workspace, path, model="ours")
    assert (imported.imported, imported.duplicates, imported.quarantined) == (4, 1, 2)
    again = import_battles(workspace, path, model="ours")
    assert (again.imported, again.duplicates) == (0, 5)
    assert len(Ledger(workspace, "battles").rows()) == 4
    signals = Ledger(workspace, "signals").rows()
    assert sorted(json.loads(s["evidence"])["battle_id"] for s in signals) == ["1", "3"]
    assert {s["capability"] for s in signals} == {"typography", None} and not any(s["passed"] for s in signals)
    assert set(battles(Ledger(workspace, "battles").rows())) == {"overall", "typography"}
