"""Rewards over HTTP, from a real server: the same as in this process."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from flywheel.core.errors import UsageError
from flywheel.remedies.reward_service import listening, service
from tests.training.rl_parts import serving
from training.rewards import RewardsLost, Service, decode, encode

TOKEN = "a-token-of-16-characters"


@pytest.mark.slow
def test_the_service_gives_the_same_scores_and_is_asked_again_when_it_stumbles(requests, local):
    app, stumbles = service(local), iter([503, 502])

    @app.middleware("http")
    async def stumble(incoming, go_on):
        status = next(stumbles, None)
        return Response(status_code=status) if status else await go_on(incoming)

    assert decode(encode(requests[3])) == requests[3]
    with serving(app) as url:
        remote = Service(url, backoff=0.01)  # its first question meets both stumbles; it also waits for the start
        assert remote.names == local.names and remote.score(requests) == local.score(requests)
        with pytest.raises(UsageError, match="answered HTTP 400: .*not a reward request"):
            remote.ask("POST", "score", {"requests": [{"image": "§"}]})
        lists = (b'{"requests": 5}', b'{"requests": [5]}', b'{"requests": [NaN]}')
        for odd in (b"[" * 100_000, b"[]", b"5", b"{", *lists):
            answer = httpx.post(f"{url}/score", content=odd)
            assert answer.status_code == 400 and "not a reward request: " in answer.json()["error"]
            assert "Error" not in answer.text and "subscriptable" not in answer.text
        with pytest.raises(UsageError, match="answered HTTP 404"):
            remote.ask("GET", "nothing")
    with pytest.raises(RewardsLost, match="gave no answer in 3 tries .ConnectError"):
        replace(remote, attempts=3).score(requests[:1])
    with pytest.raises(UsageError, match="give a URL such as"):
        Service("rewards").score([])


@pytest.mark.slow
def test_beyond_this_machine_a_token_is_needed(requests, local, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match="set FLYWHEEL_REWARDS_TOKEN to a token"):
        listening(local, "0.0.0.0", "")
    with serving(listening(local, "127.0.0.1", TOKEN)) as url:
        assert httpx.get(f"{url}/rewards").status_code == 401
        with pytest.raises(UsageError, match="answered HTTP 401"):
            Service(url).score(requests[:1])
        monkeypatch.setenv("FLYWHEEL_REWARDS_TOKEN", TOKEN)
        assert Service(url).names == local.names
        assert httpx.get(f"{url}/rewards", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    "answer",
    [[], {}, {"rewards": []}, {"rewards": "ocr"}, {"rewards": [1]}, "text", None],
    ids=repr,
)
def test_a_service_that_lists_something_else_is_one_sentence(answer):
    with serving(_another(answer, {})) as url, pytest.raises(UsageError, match="is not a reward service"):
        _ = Service(url).names


@pytest.mark.parametrize(
    "answer",
    [[], {}, {"scores": 5}, {"scores": [[0.5]]}, {"scores": [None]}, {"scores": [{"x": 1.0}]}, {"scores": []}, None],
    ids=repr,
)
def test_a_service_that_answers_in_another_shape_is_one_sentence(requests, answer):
    with serving(_another({"rewards": ["ocr"]}, answer)) as url, pytest.raises(UsageError, match="reward service http"):
        Service(url).score(requests[:1])


def _another(names: object, scores: object) -> FastAPI:
    app = FastAPI()
    app.get("/rewards")(lambda: JSONResponse(names))
    app.post("/score")(lambda: JSONResponse(scores))
    return app
