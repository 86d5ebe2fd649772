"""Drawings."""

from dashboards.charts import change_strip, histogram, loss_plot, rate_strip, stacked_bar
from dashboards.rounds import CapabilityRates, Rate
from dashboards.training import Curve


def test_a_flat_or_single_point_curve_can_be_drawn() -> None:
    plot = loss_plot([Curve("candidate", [(1.0, 0.5)], [])])
    assert "polyline" in plot.svg
    assert (plot.top, plot.bottom, plot.last_step) == (0.5, 0.5, 1)


def test_strips_place_marks_by_per_cent() -> None:
    rates = CapabilityRates(
        "count", 24, {"incumbent": Rate(0.75, 0.5, 0.9), "candidate": Rate(0.25, 0.1, 0.4)}, True, None
    )
    svg = rate_strip(rates)
    assert 'cx="75.00%"' in svg
    assert 'x1="10.00%" x2="40.00%"' in svg
    assert "control" not in svg
    assert 'cx="25.00%"' in change_strip(-0.7, -0.3, -0.5, "win")


def test_bar_of_nothing_has_no_width() -> None:
    assert stacked_bar([("admitted", 0), ("dropped", 0)]).count('width="0.000%"') == 2


def test_a_histogram_has_a_bar_for_each_part_with_rows_and_a_line_that_stays_inside() -> None:
    svg = histogram([4, 0, 1, 0], {"S1.entropy.min-line": 0.25}, [0.5, -0.1, 1.1])
    assert svg.count("<rect") == 2 and "4 rows" in svg and 'x="50.00%" y="15.0" width="21.50%" height="15.0"' in svg, (
        "half as high as the largest"
    )
    assert '<line id="S1.entropy.min-line" x1="25.00%"' in svg
    assert '<line class="mark" x1="50.00%"' in svg and svg.count('class="mark"') == 1
    assert 'x1="100.00%"' in histogram([], {"x": 7.0}) and 'x1="0.00%"' in histogram([0], {"x": float("nan")})


def test_drawings_escape_what_data_names() -> None:
    assert "<b>" not in histogram([1], {'"><b>': 0.5})
    assert "<b>" not in change_strip(0, 0, 0, '"><b>')
