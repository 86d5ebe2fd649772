"""Parts of the map: the rectangle that a page shows, and a lasso about what a person chose."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from urllib.parse import urlencode

import numpy as np

MOST = 200  # corners of a lasso: an address has to hold them
_FAR = 1e6  # farther out than any point lies


@dataclass(frozen=True)
class Box:
    """A rectangle of the map, in its units."""

    x0: float
    x1: float
    y0: float
    y1: float

    def __post_init__(self) -> None:
        if not (self.x0 < self.x1 and self.y0 < self.y1 and _near(vars(self).values())):
            raise ValueError("This is no rectangle: x0 is less than x1, and y0 less than y1.")

    @property
    def text(self) -> str:
        """As addresses have it: `x0,x1,y0,y1`."""
        return ",".join(f"{v:.6g}" for v in (self.x0, self.x1, self.y0, self.y1))

    @property
    def middle(self) -> tuple[float, float]:
        """Its middle."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def inside(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Which of the points are in it, edges included: bool [N]."""
        return (x >= self.x0) & (x <= self.x1) & (y >= self.y0) & (y <= self.y1)

    def condition(self) -> str:
        """The same in SQL, of columns x and y."""
        return f"x BETWEEN {self.x0!r} AND {self.x1!r} AND y BETWEEN {self.y0!r} AND {self.y1!r}"

    def moved(self, right: float = 0.0, up: float = 0.0, zoom: float = 1.0) -> Box:
        """Moved by shares of its size, then zoomed about its middle."""
        wide, high = self.x1 - self.x0, self.y1 - self.y0
        x, y = self.middle[0] + right * wide, self.middle[1] + up * high
        return Box(x - wide / zoom / 2, x + wide / zoom / 2, y - high / zoom / 2, y + high / zoom / 2)

    def query(
        self, colour: str, right: float = 0.0, up: float = 0.0, zoom: float = 1.0, lasso: Lasso | None = None
    ) -> str:
        """Parameters of the address of this rectangle in a colour, moved and zoomed, with what is chosen on it."""
        ends = {k: f"{v:.6g}" for k, v in vars(self.moved(right, up, zoom)).items()}
        return urlencode({"colour": colour} | ends | ({"within": lasso.text} if lasso else {}))


@dataclass(frozen=True)
class Lasso:
    """A closed line, as its corners (x, y) in the map's units; where it crosses itself, as even-odd filling has it."""

    corners: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not 3 <= len(self.corners) <= MOST:
            raise ValueError(f"A lasso has 3 to {MOST} corners, as x,y x,y x,y.")
        if not _near(v for corner in self.corners for v in corner):
            raise ValueError("A corner of this lasso is not on the map.")

    @property
    def text(self) -> str:
        """As addresses have it, and the points of an SVG: `x,y x,y x,y`."""
        return " ".join(f"{x:.5g},{y:.5g}" for x, y in self.corners)

    @property
    def middle(self) -> tuple[float, float]:
        """The mean of its corners."""
        return sum(x for x, _ in self.corners) / len(self.corners), sum(y for _, y in self.corners) / len(self.corners)

    def inside(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Which of the points are in it: bool [N]."""
        (x0, y0), (x1, y1) = (f(np.array(self.corners), axis=0) for f in (np.min, np.max))
        chosen = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
        x, y = x[chosen].astype(np.float64), y[chosen].astype(np.float64)
        odd = np.zeros(len(x), bool)
        for (ax, ay), slope, (_, by) in self._edges():
            crossed = np.flatnonzero((y < ay) != (y < by))
            odd[crossed] ^= x[crossed] < ax + (y[crossed] - ay) * slope
        chosen[chosen] = odd
        return chosen

    def condition(self) -> str:
        """The same in SQL, of columns x and y: the slab between two corners' heights is searched by halves, and in it a
        point is compared with the few edges that cross it, so that a million points and sixty corners take little.
        """
        heights = sorted({y for _, y in self.corners})
        edges = [(min(a[1], b[1]), max(a[1], b[1]), a, slope) for a, slope, b in self._edges()]

        def slabs(first: int, last: int) -> str:
            if last - first > 1:
                middle = (first + last) // 2
                below, above = slabs(first, middle), slabs(middle, last)
                return f"CASE WHEN y < {heights[middle]!r}::DOUBLE THEN {below} ELSE {above} END"
            crossed = [(a, slope) for low, high, a, slope in edges if low <= heights[first] and heights[last] <= high]
            left_of = [f"(x < {x!r}::DOUBLE + (y - {y!r}::DOUBLE) * {slope!r}::DOUBLE)" for (x, y), slope in crossed]
            return reduce(lambda one, other: f"({one} <> {other})", left_of, "false")

        if len(heights) == 1:
            return "false"
        return f"y >= {heights[0]!r}::DOUBLE AND y < {heights[-1]!r}::DOUBLE AND {slabs(0, len(heights) - 1)}"

    def on(self, box: Box, side: float = 1000.0) -> str:
        """Points of its SVG polygon over a picture of the rectangle that is `side` wide and high."""
        across, down = side / (box.x1 - box.x0), side / (box.y1 - box.y0)
        return " ".join(f"{(x - box.x0) * across:.1f},{(box.y1 - y) * down:.1f}" for x, y in self.corners)

    def _edges(self) -> list[tuple[tuple[float, float], float, tuple[float, float]]]:
        """(corner, change of x by y to the next one, next corner) of the edges that are not level."""
        ends = zip(self.corners, (*self.corners[1:], self.corners[0]))
        return [(a, (b[0] - a[0]) / (b[1] - a[1]), b) for a, b in ends if a[1] != b[1]]


def shape(text: str) -> Box | Lasso:
    """The part of the map that an address means: `x0,x1,y0,y1`, or `x,y x,y …`. Errors: `ValueError`, a sentence."""
    try:
        corners = [[float(v) for v in corner.split(",")] for corner in text.split()]
    except ValueError as error:
        raise ValueError("A part of the map is x0,x1,y0,y1, or the corners x,y x,y x,y of a lasso.") from error
    if len(corners) == 1 and len(corners[0]) == 4:
        return Box(*corners[0])
    if any(len(corner) != 2 for corner in corners):
        raise ValueError("A part of the map is x0,x1,y0,y1, or the corners x,y x,y x,y of a lasso.")
    return Lasso(tuple((round(x, 9), round(y, 9)) for x, y in corners))  # so that no edge is nearly level


def _near(values: Iterable[float]) -> bool:
    return all(math.isfinite(v) and abs(v) < _FAR for v in values)
