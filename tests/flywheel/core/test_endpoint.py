"""Chat endpoints: retries, refusals and cached answers, asked through a judge."""

import base64
import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flywheel.core.endpoint import image_part
from flywheel.core.errors import UsageError
from flywheel.core.image import decode
from tests.flywheel.signals import test_judge
from tests.flywheel.signals.test_judge import PNG, YES, Reply, Server, judge

server = test_judge.server  # a fixture


@pytest.mark.parametrize("form", ["16 bits", "CMYK", "alpha", "turned", "TIFF", "usual"])
def test_models_are_shown_what_the_engine_sees(form: str):
    ramp = np.linspace(0, 255, 32).astype("uint8")[None].repeat(24, 0)
    color, buffer = Image.fromarray(np.dstack([ramp, ramp[::-1], 255 - ramp])), io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    {
        "16 bits": lambda: Image.fromarray(ramp.astype("uint16") * 257).save(buffer, "PNG"),
        "CMYK": lambda: color.convert("CMYK").save(buffer, "JPEG"),
        "alpha": lambda: Image.merge("RGBA", [*color.split(), Image.fromarray(ramp)]).save(buffer, "PNG"),
        "turned": lambda: color.save(buffer, "JPEG", exif=exif),
        "TIFF": lambda: color.save(buffer, "TIFF"),
        "usual": lambda: color.save(buffer, "JPEG"),
    }[form]()
    kind, _, data = image_part(buffer.getvalue())["image_url"]["url"].partition(";base64,")
    shown = base64.b64decode(data)
    assert (shown == buffer.getvalue()) == (form == "usual")
    assert kind == ("data:image/jpeg" if form == "usual" else "data:image/png")
    if form != "usual":
        assert np.array_equal(Image.open(io.BytesIO(shown)).convert("RGB"), decode(buffer.getvalue()))


def test_errors_rate_limits_and_malformed_answers_are_retried(server: Server):
    fenced = f"```json\n{json.dumps(YES)}\n```"
    server.replies = [(500, "x"), (429, "x"), (200, "no JSON"), (200, {"answers": [{"id": "a"}]}), (200, fenced)]
    assert judge(server).answer(PNG, ["?"]) == {0: "yes", 1: "no"}
    assert len(server.requests) == 5


def test_a_slow_server_is_asked_again(server: Server):
    def slow() -> Reply:
        time.sleep(2)
        return 200, YES

    server.replies = [slow, (200, YES)]
    assert judge(server, timeout=1).answer(PNG, ["?"])[0] == "yes"
    assert len(server.requests) == 2


def test_a_refused_key_is_the_users_to_fix_and_is_not_retried(server: Server, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match="set the environment variable JUDGE_KEY"):
        judge(server, key_variable="JUDGE_KEY")
    monkeypatch.setenv("JUDGE_KEY", "secret")
    server.replies = [(401, "no")]
    with pytest.raises(UsageError, match="check url, model and key"):
        judge(server, key_variable="JUDGE_KEY").answer(PNG, ["?"])
    assert len(server.requests) == 1 and server.headers[0]["Authorization"] == "Bearer secret"


def test_answers_are_kept_by_content(server: Server, tmp_path: Path):
    cached = judge(server, cache=tmp_path)
    first = cached.answer(PNG, ["a?"])
    assert cached.answer(PNG, ["a?"]) == first and len(server.requests) == 1
    cached.answer(PNG + b"2", ["a?"])
    cached.answer(PNG, ["b?"])
    judge(server, cache=tmp_path, model="other").answer(PNG, ["a?"])
    assert len(server.requests) == 4
