"""What a rectangle of the map holds, and its picture."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dashboards import pool_map
from dashboards.page import STYLE
from dashboards.pool_map import HUES, RAMP, SIDE, Label, case_points, legend, nearest, picture, pool_points
from dashboards.shapes import Box, Lasso
from flywheel.catalog.database import connect
from tests.dashboards.workspace import build, place_on_map


@pytest.fixture(scope="module")
def con(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    workspace = build(Path(tmp_path_factory.mktemp("map")) / "w")
    place_on_map(workspace)
    with closing(connect(workspace, ("map_points", "decisions", "cases", "scores"))) as opened:
        pool_map.prepare(opened)
        yield opened


def colours(png: bytes) -> set[tuple[int, int, int]]:
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))
    assert image.shape == (SIDE, SIDE, 4)
    return {tuple(map(int, c[:3])) for c in np.unique(image[image[..., 3] > 0], axis=0)}


def rgb(hex_: str) -> tuple[int, ...]:
    return tuple(int(hex_[k : k + 2], 16) for k in (1, 3, 5))


def test_points_have_the_labels_of_their_rows(con):
    pool = pool_points(con, "stage")
    assert len(pool.x) == 299 and pool.labels == ("S3", "S1", "other")
    assert legend([pool], pool.whole) == [Label("S3", "hue-0", 224), Label("S1", "hue-1", 75)]
    low = Box(-1.05, -0.55, -1.05, -0.95)  # the first row of the grid: five samples that were dropped
    assert legend([pool_points(con, "outcome")], low) == [Label("dropped", "hue-1", 5)]
    assert [r["source_uri"] for r in nearest(con, Box(-1.05, -0.65, -1.05, -0.95))] == [
        "cards/0001.png", "cards/0002.png", "cards/0000.png", "cards/0003.png",
    ]  # fmt: skip
    corner = Lasso(((-1.05, -1.05), (-0.65, -1.05), (-1.05, -0.65)))  # cuts the same row, and the one above it
    assert {r["source_uri"] for r in nearest(con, corner)} <= {f"cards/{i:04d}.png" for i in range(60)}
    assert legend([pool_points(con, "outcome")], corner) == [Label("dropped", "hue-1", len(nearest(con, corner)))]
    assert nearest(con, Box(5, 6, 5, 6)) == [] == legend([pool], Box(5, 6, 5, 6))


def test_failing_prompts_lie_above_a_gray_pool_in_the_colours_of_their_tracks(con):
    pool, cases = pool_points(con, "track"), case_points(con, "track")
    shown = legend([cases, pool], pool.whole)
    assert sorted(shown, key=lambda label: label.style) == [
        Label("pretraining", "hue-2", 1), Label("human", "hue-3", 1), Label("pool", "hue-7", 299),
    ]  # fmt: skip
    seen = colours(picture(pool, cases, pool.whole))
    assert {rgb(HUES[3]), rgb(HUES[7])} <= seen and rgb(HUES[0]) not in seen
    assert len(case_points(con, "stage").x) == 0


@pytest.mark.parametrize("few", [0, 3000])
def test_many_points_are_drawn_as_cells_and_few_as_dots(con, monkeypatch: pytest.MonkeyPatch, few: int):
    monkeypatch.setattr(pool_map, "FEW", few)
    pool = pool_points(con, "outcome")
    seen = colours(picture(pool, case_points(con, "outcome"), pool.whole))
    assert {rgb(HUES[0]), rgb(HUES[1])} <= seen
    assert colours(picture(pool, case_points(con, "outcome"), Box(5, 6, 5, 6))) == set()


def test_a_score_colours_by_its_range(con):
    con.execute('CREATE OR REPLACE TEMP VIEW scores AS SELECT sample_id, source_uri, row / 2 AS "a.b" FROM decisions')
    pool = pool_points(con, "a.b")
    assert len(pool.labels) == len(RAMP) + 1 and pool.labels[-1] == "no score"
    counts = np.bincount(pool.code, minlength=8)
    assert counts[7] == 0 and counts[:7].min() > 30, "parts of equal width over what nearly all have"


def test_the_style_sheet_has_the_colours_of_the_picture():
    style = STYLE.read_text()
    for name, listed in (("hue", HUES), ("ramp", RAMP)):
        assert re.findall(rf"\.{name}-\d+ {{ --k: (#[0-9a-f]+); }}", style) == list(listed)
