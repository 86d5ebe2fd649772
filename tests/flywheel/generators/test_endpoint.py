"""A model behind an endpoint: drawn through faults, at a limited rate, each picture on its own."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.core.generator import Undrawn
from flywheel.generators.endpoint import EndpointGenerator
from flywheel.presets import Evaluation
from flywheel.signals.drawing import sample_suite
from flywheel.signals.suite import Prompt
from tests.flywheel.generators.image_server import Server, serving
from tests.flywheel.generators.tiny_pipeline import card, nearest

SIZE = {"size": (16, 16), "steps": 5, "guidance": 2.0}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as listening:
        yield listening


def at(server: Server, **changes: object) -> EndpointGenerator:
    return EndpointGenerator(**{"url": server.url, "model": "m", "longest_wait": 0.3, "timeout": 5} | changes)


def test_pictures_come_in_order_with_the_settings_that_the_server_takes(server: Server):
    names = {"seed": "seed", "steps": "num_inference_steps", "negative": "negative_prompt"}
    generator = at(server, names=names, fields={"quality": "high"})
    prompts = ["a blue card", "a green card", "a red card"] * 3
    drawn = list(generator.draw(prompts, seeds=range(9), negative="blur", **SIZE))
    assert [nearest(x) for x in drawn] == ["blue", "green", "red"] * 3
    asked = next(a for a in server.asked if a["seed"] == 4)
    assert asked["path"] == "/v1/images/generations" and asked["prompt"] == "a green card"
    assert {
        "num_inference_steps": 5,
        "negative_prompt": "blur",
        "size": "16x16",
        "quality": "high",
    }.items() <= asked.items()
    assert "guidance" not in asked  # it has no name for this server


def test_an_edit_sends_its_references_and_its_mask(server: Server):
    mask = np.zeros((16, 16), np.uint8)
    mask[:, 8:] = 255
    (drawn,) = at(server).draw(
        ["make it blue"], seeds=[1], references=[[card("red"), card("green")]], masks=[mask], **SIZE
    )
    (asked,) = server.asked
    assert nearest(drawn) == "blue" and asked["path"] == "/v1/images/edits" and asked["seed"] == "1"
    sent = [np.asarray(Image.open(io.BytesIO(b))) for b in asked["image[]"]]
    assert [nearest(x) for x in sent] == ["red", "green"]
    opaque = np.asarray(Image.open(io.BytesIO(asked["mask"][0])))[..., 3]
    assert (opaque[:, :8] == 255).all() and (opaque[:, 8:] == 0).all()  # transparent where the edit may paint


def test_errors_limits_slow_and_malformed_answers_are_asked_again(server: Server):
    def slow() -> None:
        time.sleep(1.5)

    faults = [(500, b"x"), (429, b"slow down"), slow, (200, b"no JSON"), (200, {"data": []}), (503, b"")]
    server.faults = [*faults, (200, {"data": [{"b64_json": "bm8gcGljdHVyZQ=="}]})]
    (drawn,) = at(server, timeout=1, attempts=9).draw(["a blue card"], seeds=[0], **SIZE)
    assert nearest(drawn) == "blue" and len(server.asked) == 8


def test_what_a_server_refuses_costs_its_own_row(server: Server):
    server.faults = [lambda: None, (400, b"content policy"), (200, {"data": [{"b64_json": _encoded(24)}]})]
    one, refused, large = at(server, concurrency=1).draw(["a red card"] * 3, seeds=[0, 1, 2], **SIZE)
    assert nearest(one) == "red"
    assert isinstance(refused, Undrawn) and "content policy" in refused.reason and not refused.again
    assert isinstance(large, Undrawn) and "24x24 pixels instead of 16x16" in large.reason
    assert len(server.asked) == 3  # neither is worth another bill
    priced = at(server, price=0.04)
    list(priced.draw(["a red card"] * 5, seeds=range(5), **SIZE))
    assert priced.cost == 0.04 * 5
    server.faults = [(401, b"")]
    with pytest.raises(UsageError, match="check url, model and key"):
        list(at(server).draw(["a red card"], seeds=[0], **SIZE))


def _encoded(side: int) -> str:
    import base64

    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_picture_by_address_is_fetched_without_the_key(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IMAGE_KEY", "secret")
    server.by_address = True
    (drawn,) = at(server, key_variable="IMAGE_KEY").draw(["a red card"], seeds=[0], **SIZE)
    assert nearest(drawn) == "red" and "Authorization" not in server.fetched[0]


def test_a_picture_as_a_data_address_in_lines_or_as_webp_is_read(server: Server):
    import base64

    buffer = io.BytesIO()
    Image.fromarray(card("blue")).save(buffer, "WEBP", lossless=True)
    blue = base64.encodebytes(buffer.getvalue()).decode()
    rows = [{"b64_json": blue}, {"b64_json": f"data:image/webp;base64,{blue}"}, {"url": f"data:;base64,{blue}"}]
    server.faults = [(200, {"data": [row]}) for row in rows]
    drawn = list(at(server, concurrency=1, attempts=1).draw(["a red card"] * 3, seeds=range(3), **SIZE))
    assert [nearest(x) for x in drawn] == ["blue"] * 3


def test_the_rate_is_limited(server: Server):
    server.faults = [(500, b"x")]
    list(at(server, per_minute=300, concurrency=8).draw(["a red card"] * 4, seeds=range(4), **SIZE))
    times = sorted(a["at"] for a in server.asked)
    assert len(times) == 5 and times[-1] - times[0] > 0.6  # with the repeated one, 0.2 s apart


def test_a_suite_resumes_at_the_picture_where_the_server_failed(server: Server, tmp_path: Path):
    suite = [Prompt(f"p{n}", f"a red card {n}", "t2i", (), ()) for n in range(6)]
    settings = Evaluation(suite="pool", side=16, steps=1, cfg=1.0)
    server.faults = [lambda: None] * 4 + [(503, b"")] * 2
    generator = at(server, concurrency=1, attempts=1)
    with pytest.raises(UsageError, match="2 of 6 pictures could not be drawn .* run this again"):
        sample_suite(suite, generator, tmp_path, settings=settings, seed=3)
    asked = len(server.asked)
    assert all(isinstance(x, bytes) for x in sample_suite(suite, generator, tmp_path, settings=settings, seed=3))
    assert [a["prompt"] for a in server.asked[asked:]] == ["a red card 4", "a red card 5"]


def test_wrong_settings_are_refused(server: Server):
    for wrong in ({"names": {"colour": "x"}}, {"concurrency": 0}, {"url": "ftp://x"}, {"key_variable": "NO_SUCH_KEY"}):
        with pytest.raises(UsageError):
            at(server, **wrong)
    assert at(server).fingerprint == at(server, price=2.0).fingerprint != at(server, revision="2").fingerprint
