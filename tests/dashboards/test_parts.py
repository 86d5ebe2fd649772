"""The parts under the pages: intervals, curves, pictures, drawings."""

import base64
import io
import json
import random

import pytest
from PIL import Image
from scipy.stats import binomtest

from dashboards.charts import change_strip, loss_plot, rate_strip, stacked_bar
from dashboards.images import InlineImages, picture, shrink
from dashboards.page import number, points, text
from dashboards.rounds import Line, Rate, Round, wilson
from dashboards.training import POINTS, Curve, load_curves
from flywheel.core.files import write_bytes
from flywheel.core.workspace import Workspace


@pytest.mark.parametrize(("failed", "n"), [(0, 24), (1, 24), (12, 24), (24, 24), (37, 100), (1, 1)])
def test_wilson_agrees_with_scipy(failed: int, n: int) -> None:
    known = binomtest(failed, n).proportion_ci(method="wilson")
    ours = wilson(failed / n, n)
    assert (ours.low, ours.high) == pytest.approx((known.low, known.high), abs=1e-6)


def test_no_prompts_mean_no_knowledge() -> None:
    assert wilson(0.0, 0) == Rate(0.0, 0.0, 1.0)


def test_mean_rate_weighs_targets_by_their_prompts() -> None:
    result = {
        "targets": ["a", "b"],
        "prompts": {"a": 30, "b": 10, "c": 100},
        "failure_rate": {"a": 0.1, "b": 0.5, "c": 1.0},
        "incumbent_failure_rate": {"a": 0.4, "b": 0.4, "c": 0.0},
    }
    one = Round(2, "PROMOTE", "c", "i", "s", None, result)
    assert one.mean_rate("candidate") == pytest.approx(0.2)
    assert one.mean_rate("incumbent") == pytest.approx(0.4)
    assert one.mean_rate("control") is None
    assert one.change == pytest.approx(-0.5)


def test_curves_skip_what_is_no_number_and_stay_small(empty: Workspace) -> None:
    lines = [{"step": i, "loss": 1.0 / i} for i in range(1, 1001)]
    lines += [{"step": 1001, "loss": float("nan")}, {"step": 1002}, {"step": 1003, "loss": None}]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"step": 1004, "lo'  # a killed writer's last line
    write_bytes(empty.path("checkpoints", "round-0001-candidate", "metrics.jsonl"), text.encode())
    (curve,) = load_curves(empty, 1)
    assert curve.arm == "candidate"
    assert len(curve.loss) <= POINTS
    assert curve.loss[0][1] > curve.loss[-1][1] > 0
    assert curve.held_out == []


def test_a_flat_or_single_point_curve_can_be_drawn() -> None:
    plot = loss_plot([Curve("candidate", [(1.0, 0.5)], [])])
    assert "polyline" in plot.svg
    assert (plot.top, plot.bottom, plot.last_step) == (0.5, 0.5, 1)


def test_strips_place_marks_by_per_cent() -> None:
    line = Line("count", 24, {"incumbent": Rate(0.75, 0.5, 0.9), "candidate": Rate(0.25, 0.1, 0.4)}, True, None)
    svg = rate_strip(line)
    assert 'cx="75.00%"' in svg
    assert 'x1="10.00%" x2="40.00%"' in svg
    assert "control" not in svg
    assert 'cx="25.00%"' in change_strip(-0.7, -0.3, -0.5, "win")


def test_bar_of_nothing_has_no_width() -> None:
    assert stacked_bar([("admitted", 0), ("dropped", 0)]).count('width="0.000%"') == 2


def test_drawings_escape_what_data_names() -> None:
    assert "<b>" not in change_strip(0, 0, 0, '"><b>')


def test_numbers_read_well() -> None:
    assert [number(x) for x in (1234567, 0.123456, None, 3.0)] == ["1,234,567", "0.123", "–", "3"]
    assert points(-0.004) == "0\u202fpp"
    assert points(-0.5) == "−50\u202fpp"


def test_evidence_is_spelled_out_and_cut() -> None:
    assert text({"pixels.entropy": [3.123456, 7.5], "colour_ok": True}) == "pixels.entropy 3.12, 7.5, colour ok yes"
    assert text("天" * 500) == "天" * 159 + "…"


def test_only_pictures_inside_the_workspace_are_found(empty: Workspace, tmp_path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    empty.path("samples").mkdir()
    Image.new("RGB", (8, 8)).save(empty.path("samples", "in.png"))
    empty.path("samples", "link.png").symlink_to(tmp_path / "outside.png")
    assert picture(empty, "samples/in.png") is not None
    outside = ["../outside.png", "samples/link.png", str(tmp_path / "outside.png")]
    for name in (*outside, "workspace.json", "no.png", None, "a\0b"):
        assert picture(empty, name) is None


def test_large_pictures_shrink_and_small_ones_stay_as_they_are(empty: Workspace) -> None:
    dice = random.Random(0)
    noise = Image.frombytes("RGB", (900, 600), dice.randbytes(900 * 600 * 3))
    path = empty.path("samples", "noise.png")
    path.parent.mkdir()
    noise.save(path)
    data, kind = shrink(path, 192)
    with Image.open(io.BytesIO(data)) as small:
        assert small.size == (192, 128)
        assert Image.MIME[small.format] == kind
    Image.new("RGB", (64, 64), "red").save(path)
    assert shrink(path, 192) == (path.read_bytes(), "image/png")


def test_inline_pictures_stop_at_the_budget(empty: Workspace) -> None:
    empty.path("samples").mkdir()
    for i in (1, 2, 3):
        Image.new("RGB", (64, 64), (60 * i, 0, 0)).save(empty.path("samples", f"{i}.png"))
    one = len(base64.b64encode(empty.path("samples", "1.png").read_bytes())) + len("data:image/png;base64,")
    inline = InlineImages(empty, budget=2 * one + 10)
    shown = [inline(f"samples/{i}.png") for i in (1, 2, 3)]
    assert [s is not None for s in shown] == [True, True, False]
    assert inline.left_out == 1
    assert inline("samples/missing.png") is None
