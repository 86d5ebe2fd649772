"""Bad cases from a model's own judgements."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.mining import Mining, mine, mine_file


def judgement(prompt: str, seed: int, score: float, verifier: str = "text", **changes: object) -> dict:
    row = {"prompt_id": prompt, "prompt": f"a {prompt}", "capability": "typography", "checkpoint": "c", "seed": seed}
    return row | {"verifier": verifier, "score": score, "threshold": 0.8, "image": f"{prompt}-{seed}.png"} | changes


JUDGEMENTS = [
    *(judgement("bad", s, 0.1) for s in range(3)),
    *(judgement("moody", s, 0.95 if s else 0.2) for s in range(4)),
    *(judgement("argued", s, v, j) for s in range(2) for j, v in (("text", 0.99), ("question", 0.1), ("clip", 0.99))),
    *(judgement("close", s, v) for s, v in enumerate((0.81, 0.99))),
    *(judgement("good", s, 0.99) for s in range(3)),
    judgement("good", 7, None, "not applied"),
]


def test_failures_disagreement_and_narrow_passes_are_found():
    table = mine(pa.Table.from_pylist(JUDGEMENTS), Mining(), batch="b")
    mined = {(r["prompt_id"], r["verifier"]): r for r in table.to_pylist()}
    assert mined.keys() == {
        ("bad", "self"),
        ("moody", "seeds"),
        ("argued", "self"),
        ("argued", "judges"),
        ("close", "margin"),
    }
    moody = mined["moody", "seeds"]
    assert json.loads(moody["evidence"]) == {"seeds": 4, "seeds_passed": 3, "failed_seeds": [0]}
    assert moody["score"] == 0.75 and moody["image"] == "moody-0.png" and moody["passed"] is False
    assert json.loads(mined["argued", "judges"]["evidence"])["dissent"] == pytest.approx(2 / 3)
    assert mined["close", "margin"]["image"] == "close-0.png" and mined["bad", "self"]["kind"] == "mining"


def test_thresholds_decide():
    strict = mine(pa.Table.from_pylist(JUDGEMENTS), Mining(margin=0, disagreement=0.9, min_seeds=5), batch="b")
    assert {r["verifier"] for r in strict.to_pylist()} == {"self"}


def test_a_file_is_mined_once_and_a_missing_column_is_named(tmp_path: Path):
    workspace, path = Workspace(tmp_path / "w"), tmp_path / "j.jsonl"
    path.write_text("\n".join(map(json.dumps, JUDGEMENTS)))
    assert mine_file(workspace, path, Mining()) == {"judges": 1, "margin": 1, "seeds": 1, "self": 2}
    mine_file(workspace, path, Mining())
    assert len(Ledger(workspace, "signals").rows()) == 5
    path.write_text(json.dumps({"prompt_id": "x"}))
    with pytest.raises(UsageError, match="seed, verifier, score, threshold missing"):
        mine_file(workspace, path, Mining())
    path.write_text("{")
    with pytest.raises(UsageError, match="cannot be read as judgements"):
        mine_file(workspace, path, Mining())
