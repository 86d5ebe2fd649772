"""Parts of the map: what is inside, in NumPy and in SQL alike, and as addresses have it."""

from __future__ import annotations

import math

import duckdb
import numpy as np
import pytest

from dashboards.shapes import MOST, Box, Lasso, shape

STAR = Lasso(tuple((math.cos(4 * math.pi * k / 5), math.sin(4 * math.pi * k / 5)) for k in range(5)))  # crosses itself


def by_hand(lasso: Lasso, x: float, y: float) -> bool:
    """Even-odd by angles: the corners' windings about the point, summed; odd windings are inside."""
    turns = 0.0
    for (ax, ay), (bx, by) in zip(lasso.corners, (*lasso.corners[1:], lasso.corners[0])):
        a, b = math.atan2(ay - y, ax - x), math.atan2(by - y, bx - x)
        turns += math.remainder(b - a, 2 * math.pi)
    return round(turns / (2 * math.pi)) % 2 == 1


def test_numpy_sql_and_windings_agree():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1.2, 1.2, (2, 2000)).astype(np.float32)
    random = Lasso(tuple((float(a), float(b)) for a, b in rng.uniform(-1, 1, (12, 2)).round(3)))
    square = Lasso(((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)))
    for part in (STAR, random, square):
        inside = part.inside(x, y)
        assert inside.tolist() == [by_hand(part, a, b) for a, b in zip(x.tolist(), y.tolist())]
        with duckdb.connect() as con:
            con.register("points", {"x": x, "y": y})
            found = con.execute(f"SELECT {part.condition()} FROM points").fetchall()
        assert [f for (f,) in found] == inside.tolist()
        assert 50 < inside.sum() < 1000
    assert not STAR.inside(np.zeros(1, np.float32), np.zeros(1, np.float32)).any(), "the middle is crossed twice"


def test_an_address_has_the_part_that_was_chosen():
    assert shape("-1,1,-0.5,0.5") == Box(-1.0, 1.0, -0.5, 0.5) == shape(Box(-1.0, 1.0, -0.5, 0.5).text)
    triangle = shape(" 0,0 1,0\n0,1 ")
    assert triangle == Lasso(((0, 0), (1, 0), (0, 1))) == shape(triangle.text)
    assert Box(-1, 1, -1, 1).query("stage", lasso=triangle).endswith("within=0%2C0+1%2C0+0%2C1")
    assert triangle.on(Box(-1, 1, -1, 1)) == "500.0,500.0 1000.0,500.0 500.0,0.0"
    assert shape("0,0 1,1e-320 0,1") == Lasso(((0, 0), (1, 0), (0, 1))), "nearly level edges are level"
    level = Lasso(((0, 0), (1, 0), (0.5, 0)))  # holds nothing
    assert not level.inside(np.array([0.5]), np.array([0.0])).any()
    with duckdb.connect() as con:
        assert con.execute(f"SELECT {level.condition()} FROM (SELECT 0.5 AS x, 0.0 AS y)").fetchall() == [(False,)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1,0,0,1", "no rectangle"), ("0,1,0,nan", "no rectangle"), ("0,1,0", "lasso"), ("a,b", "lasso"),
        ("", "corners"), ("0,0 1,1", "3 to"), ("0,0 1,1 inf,0", "not on the map"), ("0,0,0,1 1,1 2,2", "lasso"),
        (" ".join(["0,0"] * (MOST + 1)), "3 to"),
    ],
)  # fmt: skip
def test_what_is_no_part_is_told(text: str, why: str):
    with pytest.raises(ValueError, match=why):
        shape(text)
