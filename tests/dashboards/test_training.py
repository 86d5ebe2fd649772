"""Curves of training runs."""

import json

from starlette.testclient import TestClient

from dashboards.training import POINTS, load_curves
from flywheel.core.files import write_bytes
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import Page


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


def test_any_metric_of_any_run_can_be_compared(client: TestClient) -> None:
    page = Page(client.get("/training").text)
    (chart,) = (json.loads(a["data-chart"]) for _, a in page.elements if "data-chart" in a)
    names = ["round-0002-candidate", "round-0002-control", "round-0001-candidate"]
    assert chart["metric"] == "loss" and [line["name"] for line in chart["lines"]] == names
    assert all(len(line["points"]) <= POINTS for line in chart["lines"])
    shown = [a.get("src", "").partition("?")[0] for _, a in page.elements]
    assert "/files/samples/round-0001-candidate/grid.png" in shown
    html = client.get("/training?metric=validation_loss&run=round-0001-candidate&run=no-such").text
    (chart,) = (json.loads(a["data-chart"]) for _, a in Page(html).elements if "data-chart" in a)
    assert [x for x, _ in chart["lines"][0]["points"]] == [100.0 * n for n in range(1, 11)]
    assert "None of these runs records reward" in Page(client.get("/training?metric=reward").text).text
