"""The map of the pool and of failing prompts: what lies in a part of it, and its picture.

The picture is drawn on the server: cells by density where there are many points, discs where there are few. So a page
weighs the same with a thousand points and with a million.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboards.rows import Row, rows
from dashboards.shapes import Box, Lasso
from flywheel.core.storage import read_parquet

if TYPE_CHECKING:
    import duckdb

# As in the style sheet (`hue-N`, `ramp-N`): tell-apart on light and on dark panels. The last hue is for all the rest.
HUES = ("#2f7fc4", "#c8661c", "#2a8f68", "#a8529a", "#9a7b14", "#c04444", "#3d8fa0", "#80868f")
RAMP = ("#c8661c", "#bb6340", "#ae6164", "#a05e88", "#8064a6", "#526cb5", "#2474c4")
SIDE = 768  # pixels of the picture
FEW = 3000  # points that are drawn one by one
OF_CASES = ("capability", "track")  # colours that are about cases; the pool is gray then
OF_POOL = {"outcome": "outcome", "stage": "stage_reached"}
_TRACKS = {"rl": 0, "prompt_enhancement": 1, "pretraining": 2, "human": 3, "unsure": 4, "unrouted": 5}  # as chips are
_CELL = 2  # pixels
_PICTURES = 12
_REST = "other"


@dataclass(frozen=True)
class Points:
    """Points of one kind: places, the number of each one's label, and the labels with their classes of colour."""

    x: np.ndarray  # float32 [N]
    y: np.ndarray
    code: np.ndarray  # int16 [N]
    labels: tuple[str, ...]
    classes: tuple[str, ...]

    @cached_property
    def whole(self) -> Box:
        """The square that holds all points, with a margin."""
        if not len(self.x):
            return Box(-1.0, 1.0, -1.0, 1.0)
        ends = [float(f(v)) for v in (self.x, self.y) for f in (np.min, np.max)]
        half = max(ends[1] - ends[0], ends[3] - ends[2], 1e-3) * 0.52
        x, y = (ends[0] + ends[1]) / 2, (ends[2] + ends[3]) / 2
        return Box(x - half, x + half, y - half, y + half)

    def inside(self, part: Box | Lasso) -> np.ndarray:
        """Which points are in that part."""
        return part.inside(self.x, self.y)


@dataclass(frozen=True)
class Label:
    """A line of the legend: its class of colour, and how many points of the part have it."""

    name: str
    style: str
    count: int


@dataclass(frozen=True)
class MapView:
    """A rectangle of the map, and what is chosen on it by a lasso, if anything is.

    Of the lasso, or else of the rectangle: the legend, points of samples and of cases in it (inside, cases_inside),
    some samples nearest to its middle, and failing prompts. placed: rows of the latest snapshot on the map, of
    `decided`.
    """

    colour: str
    colours: list[str]
    box: Box
    whole: bool
    lasso: Lasso | None
    legend: list[Label]
    inside: int
    cases_inside: int
    samples: list[Row]
    cases: list[Row]
    placed: int
    decided: int


def pool_points(con: duckdb.DuckDBPyConnection, colour: str) -> Points:
    """The rows of the latest snapshot on the map, labelled by what `colour` names: `outcome`, `stage`, or a score."""
    if colour in OF_CASES:
        return _categories(con, "(SELECT x, y, 'pool' AS label FROM labelled_places)", rest=True)
    if colour in OF_POOL:
        return _categories(con, f"(SELECT x, y, coalesce({OF_POOL[colour]}, '–') AS label FROM labelled_places)")
    name = colour.replace('"', '""')
    scored = f'(SELECT sample_id, source_uri, "{name}"::DOUBLE AS v FROM scores WHERE isfinite("{name}"::DOUBLE))'
    ends = con.execute(f"SELECT quantile_cont(v, [0.02, 0.98]) FROM {scored}").fetchall()[0][0] or [0.0, 1.0]
    width = (ends[1] - ends[0]) / len(RAMP) or 1.0
    code = f"greatest(0, least({len(RAMP) - 1}, floor((v - {ends[0]!r}) / {width!r})))::SMALLINT"
    found = con.execute(
        f"SELECT x, y, coalesce({code}, {len(RAMP)})::SMALLINT AS code FROM placed"
        f" LEFT JOIN {scored} USING (sample_id, source_uri)"
    ).fetchnumpy()
    starts = [ends[0] + n * width for n in range(len(RAMP))]
    labels = (*(f"{a:.4g} to {a + width:.4g}" for a in starts), "no score")
    return _points(found, labels, (*(f"ramp-{n}" for n in range(len(RAMP))), f"hue-{len(HUES) - 1}"))


def case_points(con: duckdb.DuckDBPyConnection, colour: str) -> Points:
    """The failing prompts on the map: open cases, labelled by capability or track; none for other colours."""
    chosen = f"coalesce({colour}, 'unrouted')" if colour in OF_CASES else "''"
    is_open = "coalesce(status, '') NOT IN ('closed', 'dismissed')"
    wanted = is_open if colour in OF_CASES else "false"
    table = f"(SELECT x, y, {chosen} AS label FROM map_points JOIN cases USING (case_id) WHERE {wanted})"
    points = _categories(con, table)
    if colour != "track":
        return points
    return replace(points, classes=tuple(f"hue-{_TRACKS.get(label, len(HUES) - 1)}" for label in points.labels))


def prepare(con: duckdb.DuckDBPyConnection, kept: Path | None = None) -> None:
    """Define `placed`: the rows of the latest snapshot with their places; and `labelled_places`, which has no ids.

    kept: a file of the latter, if there is one: else a million ids are compared for it.
    """
    con.execute(
        "CREATE OR REPLACE TEMP VIEW placed AS SELECT d.*, x::FLOAT AS x, y::FLOAT AS y"
        " FROM map_points JOIN decisions d USING (sample_id)"
    )
    places = read_parquet([str(kept)]) if kept is not None and kept.exists() else "placed"
    con.execute(f"CREATE OR REPLACE TEMP VIEW labelled_places AS SELECT x, y, outcome, stage_reached FROM {places}")


def legend(kinds: Sequence[Points], part: Box | Lasso) -> list[Label]:
    """The labels that occur in that part of the map; failing prompts first."""
    found = []
    for points in kinds:
        counts = np.bincount(points.code[points.inside(part)], minlength=len(points.labels))
        found += [Label(name, style, int(n)) for name, style, n in zip(points.labels, points.classes, counts) if n]
    return found


def nearest(con: duckdb.DuckDBPyConnection, part: Box | Lasso) -> list[Row]:
    """Some samples of that part of the map, those nearest to its middle first."""
    x, y = part.middle
    far = f"(x - {x!r}) * (x - {x!r}) + (y - {y!r}) * (y - {y!r})"
    ids = con.execute(
        f"""SELECT sample_id FROM map_points WHERE {part.condition()} AND sample_id IS NOT NULL
        ORDER BY {far}, sample_id LIMIT {_PICTURES}"""
    ).fetchall()
    select = "SELECT DISTINCT ON (sample_id) sample_id, source_uri, shard, row FROM decisions"
    found = rows(con, f"{select} WHERE sample_id IN (SELECT unnest(?::VARCHAR[]))", [[i for (i,) in ids]])
    by_id = {r["sample_id"]: r for r in found}
    return [by_id[i] for (i,) in ids if i in by_id]


def open_cases(con: duckdb.DuckDBPyConnection, part: Box | Lasso) -> list[Row]:
    """Some open cases whose prompts are in that part of the map."""
    return rows(
        con,
        f"""SELECT case_id, prompt, capability, track FROM map_points JOIN cases USING (case_id)
        WHERE {part.condition()} AND coalesce(status, '') NOT IN ('closed', 'dismissed')
        ORDER BY case_id LIMIT {_PICTURES}""",
    )


def picture(pool: Points, cases: Points, box: Box) -> bytes:
    """PNG of the rectangle on a clear ground: the pool, and above it the failing prompts as diamonds."""
    from PIL import Image

    image = Image.new("RGBA", (SIDE, SIDE))
    for points, diamond in ((pool, False), (cases, True)):
        there = points.inside(box)
        if (count := int(there.sum())) > FEW:
            image.alpha_composite(_density(points, there, box))
        elif count:
            _dots(image, points, there, box, diamond)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=False)
    return buffer.getvalue()


def _categories(con: duckdb.DuckDBPyConnection, table: str, *, rest: bool = False) -> Points:
    """Points of a table of x, y and label; the most frequent labels have hues of their own, unless all are `rest`."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE labelled AS SELECT * FROM {table}")  # joined once
    ranked = [r[0] for r in con.execute("SELECT label FROM labelled GROUP BY 1 ORDER BY count(*) DESC, 1").fetchall()]
    most = 0 if rest else len(HUES) - 1
    labels = (*ranked[:most], ranked[0] if rest and ranked else _REST)
    code = "list_position(?::VARCHAR[], label)"
    sql = f"SELECT x, y, (coalesce({code}, {len(labels)}) - 1)::SMALLINT AS code FROM labelled"
    found = con.execute(sql, [list(labels[:-1])]).fetchnumpy()
    return _points(found, labels, (*(f"hue-{n}" for n in range(len(labels) - 1)), f"hue-{len(HUES) - 1}"))


def _points(found: Mapping[str, Any], labels: tuple[str, ...], classes: tuple[str, ...]) -> Points:
    x, y = (np.asarray(found[k], np.float32) for k in ("x", "y"))
    return Points(x, y, np.asarray(found["code"], np.int16), labels, classes)


def _colours(points: Points) -> np.ndarray:
    """RGB of each label, uint8 [L, 3]."""
    known = {f"hue-{n}": c for n, c in enumerate(HUES)} | {f"ramp-{n}": c for n, c in enumerate(RAMP)}
    return np.array([[int(known[c][k : k + 2], 16) for k in (1, 3, 5)] for c in points.classes], np.uint8)


def _density(points: Points, there: np.ndarray, box: Box) -> Any:
    """Cells: the colour of the most frequent label, the denser the less transparent."""
    from PIL import Image

    cells = SIDE // _CELL
    across = np.minimum(((points.x[there] - box.x0) / (box.x1 - box.x0) * cells).astype(np.int32), cells - 1)
    down = np.minimum(((box.y1 - points.y[there]) / (box.y1 - box.y0) * cells).astype(np.int32), cells - 1)
    flat, size = (down * cells + across).astype(np.int64), cells * cells
    kinds = len(points.labels)
    counts = np.bincount(flat + points.code[there].astype(np.int64) * size, minlength=kinds * size)
    counts = counts[: kinds * size].reshape(kinds, size)
    total = counts.sum(axis=0)
    rgba = np.zeros((size, 4), np.uint8)
    rgba[:, :3] = _colours(points)[counts.argmax(axis=0)]
    rgba[:, 3] = np.where(total > 0, 110 + 145 * np.log1p(total) / math.log1p(max(1, total.max())), 0)
    return Image.fromarray(rgba.reshape(cells, cells, 4).repeat(_CELL, axis=0).repeat(_CELL, axis=1), "RGBA")


def _dots(image: Any, points: Points, there: np.ndarray, box: Box, diamond: bool) -> None:
    from PIL import ImageDraw

    draw, colours = ImageDraw.Draw(image), _colours(points)
    across = (points.x[there] - box.x0) / (box.x1 - box.x0) * SIDE
    down = (box.y1 - points.y[there]) / (box.y1 - box.y0) * SIDE
    for x, y, code in zip(across.tolist(), down.tolist(), points.code[there].tolist()):
        fill = (*(int(v) for v in colours[code]), 235)
        if diamond:
            draw.polygon([(x - 7, y), (x, y - 7), (x + 7, y), (x, y + 7)], fill=fill, outline=(255, 255, 255, 235))
        else:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=fill)
