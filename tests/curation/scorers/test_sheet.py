"""Lines of one sheet, and labels of several things."""

from __future__ import annotations

import numpy as np
import pytest

from curation.scorers.sheet import on_one_sheet

TALL = [(200, 60, 230, 400), (270, 60, 300, 380), (340, 60, 370, 420)]
PAPER = (240, 238, 230)


def drawn(*, ground: tuple[int, int, int] = PAPER, boxes: list[tuple[int, int, int, int]] = TALL) -> np.ndarray:
    """Dark marks in the boxes, on one colour."""
    rgb = np.full((500, 600, 3), ground, np.uint8)
    for left, top, right, bottom in boxes:
        rgb[top:bottom:3, left:right] = 20
    return rgb


def test_lines_of_a_page_and_lines_on_a_photograph_belong_together() -> None:
    assert on_one_sheet(drawn(), TALL)
    noise = np.random.default_rng(1).integers(0, 256, (500, 600, 3), dtype=np.uint8)
    assert on_one_sheet(noise, TALL), "nothing tells there"


def test_spines_and_ticks_do_not() -> None:
    shelf = drawn()
    for (left, _, right, _), colour in zip(TALL, ((120, 20, 30), (20, 60, 120), (30, 90, 50))):
        part = shelf[:, left - 30 : right + 30]
        part[np.all(part == PAPER, axis=2)] = colour
    assert not on_one_sheet(shelf, TALL)
    alike = drawn()
    alike[:, 250:254] = alike[:, 320:324] = 90  # volumes of one series, side by side
    assert not on_one_sheet(alike, TALL)
    one = np.random.default_rng(1).integers(0, 256, (500, 600, 3), dtype=np.uint8)
    one[40:440, 180:320] = drawn()[40:440, 180:320]  # a spine with two lines, in front of other things
    assert not on_one_sheet(one, TALL[:2])
    apart = [(60 + 180 * n, 300, 80 + 180 * n, 440) for n in range(3)]
    assert not on_one_sheet(drawn(boxes=apart), apart), "names below the bars of a chart"
    assert not on_one_sheet(drawn(), TALL[:1])


@pytest.mark.parametrize("side", [(0, 0, 30, 500), (570, 0, 600, 500)])
def test_a_line_at_the_edge_of_a_picture(side: tuple[int, int, int, int]) -> None:
    assert not on_one_sheet(drawn(boxes=[side]), [side])
