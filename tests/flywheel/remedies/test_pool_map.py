"""The map: what says the like lies together, new points move no old ones, what is gone is laid out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flywheel.cases.events import Case
from flywheel.catalog.database import query
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck
from flywheel.remedies import pool_map
from flywheel.remedies.pool_map import Built, build, current, lay_out, place


def embed(texts: list[str]) -> np.ndarray:
    """A text is a group and a number: unit vectors around the group's centre."""
    groups, numbers = zip(*(map(int, t.split()) for t in texts))
    centres = np.random.default_rng(1).standard_normal((10, 24))[list(groups)]
    noise = np.stack([np.random.default_rng(n).standard_normal(24) for n in numbers])
    values = centres + 0.3 * noise
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def captions(*groups: int, each: int = 12) -> list[tuple[str, str]]:
    return [(f"s{g}-{n}", f"{g} {1000 * g + n}") for g in groups for n in range(each)]


def case(name: str, prompt: str) -> Case:
    return Case(name, 1, "count", "rl", "p", prompt, "routed")


def points(workspace: Workspace) -> dict[str, tuple[float, float]]:
    rows = query(workspace, "SELECT coalesce(sample_id, case_id) AS id, x, y FROM map_points")
    return {r["id"]: (r["x"], r["y"]) for r in rows}


def test_like_captions_and_prompts_lie_together_and_new_ones_move_none(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    assert points(workspace) == {} and current(workspace) is None
    built = build(workspace, captions(0, 1, 2), [case("c", "1 77")], embed=embed)
    assert built == Built(samples=36, new=36, cases=1, laid_out=36)
    before = points(workspace)
    middles = {g: np.mean([before[f"s{g}-{n}"] for n in range(12)], axis=0) for g in (0, 1, 2)}
    spread = max(np.linalg.norm(np.subtract(before[f"s{g}-{n}"], middles[g])) for g in (0, 1, 2) for n in range(12))
    apart = min(np.linalg.norm(middles[a] - middles[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert apart > 2 * spread and np.linalg.norm(before["c"] - middles[1]) < spread
    assert max(abs(v) for xy in before.values() for v in xy) == pytest.approx(1, abs=0.01)
    assert build(workspace, captions(0, 1, 2, 3), [], embed=embed) == Built(samples=48, new=12, cases=0, laid_out=0)
    after = points(workspace)
    assert "c" not in after and all(after[i] == xy for i, xy in before.items() if i != "c") and len(after) == 48
    assert build(workspace, captions(0, 1, 2, 3), [], embed=embed).new == 0
    assert build(workspace, captions(0, 1, 2, each=50), [], embed=embed).laid_out == 150, "more than four times as many"
    assert len(points(workspace)) == 150 and fsck(workspace).findings == ()


def test_a_large_pool_is_placed_among_landmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workspace = Workspace(tmp_path / "w")
    monkeypatch.setattr(pool_map, "LANDMARKS", 50)
    monkeypatch.setattr(pool_map, "_CHUNK", 64)
    built = build(workspace, captions(*range(10)), [], embed=embed)
    assert built == Built(samples=120, new=120, cases=0, laid_out=50)
    found = points(workspace)
    middles = np.array([np.mean([found[f"s{g}-{n}"] for n in range(12)], axis=0) for g in range(10)])
    nearest = [
        int(np.argmin(np.linalg.norm(middles - found[f"s{g}-{n}"], axis=1))) == g for g in range(10) for n in range(12)
    ]
    assert np.mean(nearest) > 0.9


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 6])
def test_a_few_points_are_placed_too(tmp_path: Path, count: int):
    workspace = Workspace(tmp_path / "w")
    given = captions(3, each=count)
    assert build(workspace, given, [case("c", "3 5")], embed=embed) == Built(count, count, bool(count), count)
    assert len(points(workspace)) == count + bool(count)


def test_equal_captions_lie_on_one_point():
    vectors = embed(["1 1", "2 2", "3 3", "4 4", "5 5", "6 6"])
    plane = lay_out(vectors)
    assert np.allclose(place(np.concatenate([vectors[:1]] * 3), vectors, plane), plane[0], atol=0.02)
