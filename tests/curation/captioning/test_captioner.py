"""What is sent to the endpoint, and which answers are refused."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image

from curation.captioning.captioner import PROMPTS, Refused
from flywheel.core.endpoint import Unanswered
from flywheel.core.workspace import Workspace
from tests.curation.captioning.server import GOOD, Server, captioner, completion, run
from tests.curation.corpus import encoded, texture


def test_what_is_sent(workspace: Workspace, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTION_KEY", "secret")
    run(workspace, captioner(server, key_variable="CAPTION_KEY"), limit=1)
    (body,), (headers,) = server.calls, server.headers
    assert headers["Authorization"] == "Bearer secret"
    picture, text = body["messages"][0]["content"]
    assert PROMPTS["general"] in text["text"] and "JSON" in text["text"]
    kind, data = picture["image_url"]["url"].split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (160, 120)
    schema = body["response_format"]["json_schema"]["schema"]
    assert set(schema["required"]) == set(GOOD)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("not json", "answer is not JSON"),
        (GOOD | {"objects": "a patch"}, "does not fit the schema: 'a patch' is not of type 'array'"),
        ({k: v for k, v in GOOD.items() if k != "watermark"}, "'watermark' is a required property"),
        (GOOD | {"caption": ""}, "does not fit the schema"),
        (GOOD | {"caption": "I'm sorry, I cannot describe this image."}, "describes nothing \\(refusal\\)"),
        (GOOD | {"caption": "12345"}, "describes nothing \\(no words"),
    ],
)
def test_a_bad_answer_is_refused_with_its_reason(server: Server, answer: Any, reason: str) -> None:
    server.script = lambda n, r: (200, completion(answer))
    with pytest.raises(Refused, match=reason):
        captioner(server, attempts=2).ask(encoded(texture(0)))
    with pytest.raises(Refused, match="cannot be read: truncated"):
        captioner(server).ask(encoded(texture(0))[:-500])


@pytest.mark.parametrize("answer", ["<html>Welcome</html>", {}, {"choices": []}, [1]])
def test_what_another_program_answers_is_no_answer_and_is_asked_again(server: Server, answer: Any) -> None:
    server.script = lambda n, r: (200, answer)
    with pytest.raises(Unanswered, match="in 2 attempts: this is no answer of an OpenAI-compatible server"):
        captioner(server, attempts=2).ask(encoded(texture(0)))
    server.script = lambda n, r: (200, completion(GOOD))
    assert captioner(server).ask(encoded(texture(0)))
