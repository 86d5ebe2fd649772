"""The prompt enhancer's backends: rules, a language model, an endpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.presets import Enhancer
from flywheel.remedies.enhancer import answer, enhance, load_enhancer, parse
from tests.flywheel.signals.test_judge import Server, server  # noqa: F401 - a fixture


def test_enhancer_rewrites_requests_and_leaves_good_prompts_and_quotes_alone():
    assert enhance("please draw me 2 red  circles") == "two red circles"
    assert enhance("the word “2 CATS” in red") == 'the word "2 CATS" in red'
    assert enhance("two red circles") is None


def test_answers_are_read_back():
    assert parse(answer("light is open", "a cat in the sun")) == ("light is open", "a cat in the sun")
    assert parse(" a cat ") == (None, "a cat")


def test_an_unknown_model_is_the_users_to_fix(tmp_path: Path):
    with pytest.raises(UsageError, match="is not a causal LM"):
        load_enhancer(Enhancer(backend=str(tmp_path / "none")))("a cat")


def test_an_endpoint_enhances_once_and_its_silence_is_told(server: Server, tmp_path: Path):  # noqa: F811
    server.replies = [(200, {"reasoning": "light is open", "prompt": "a cat in soft light"})]
    better = load_enhancer(Enhancer(backend=server.url, model="lm"), tmp_path)
    assert better("a cat") == better("a cat") == "a cat in soft light" and better("a cat in soft light") is None
    assert len(server.requests) == 2 and "Keep every quoted text" in server.requests[0]["messages"][0]["content"]
    server.replies = [(400, "no")]
    with pytest.raises(UsageError, match="run again later"):
        better("a dog")


def test_a_model_that_sees_gets_the_references_of_an_edit(server: Server, tmp_path: Path):  # noqa: F811
    picture = b"\x89PNG the reference"
    server.replies = [(200, {"reasoning": "the hat is red", "prompt": "make the red hat on the left blue"})]
    blind, sees = (load_enhancer(Enhancer(backend=server.url, model="lm", sees=x), tmp_path) for x in (False, True))
    assert sees("make it blue", [picture]) == "make the red hat on the left blue"
    system, user = server.requests[0]["messages"]
    assert "Look at the pictures" in system["content"] and user["content"][0]["text"] == "make it blue"
    assert user["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    sees("make it blue", [picture + b", another"])
    blind("make it blue", [picture])
    sees("make it blue")
    assert len(server.requests) == 3  # another picture is another request; without one, both ask the same
    assert all(r["messages"][1]["content"] == "make it blue" for r in server.requests[2:])
    server.replies = [(400, "no pictures")]
    with pytest.raises(UsageError, match="give a model that accepts pictures"):
        sees("make it green", [picture])
    with pytest.raises(UsageError, match="enhancer.sees"):
        load_enhancer(Enhancer(backend="rules", sees=True))
