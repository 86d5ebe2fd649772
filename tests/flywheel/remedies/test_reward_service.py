"""Rewards over HTTP, from a real server: the same as in this process."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fastapi import Response

from flywheel.core.errors import UsageError
from flywheel.remedies.reward_service import service
from tests.training.rl_parts import serving
from training.rewards import RewardsLost, Service, decode, encode


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
        with pytest.raises(UsageError, match="answered HTTP 404"):
            remote.ask("GET", "nothing")
    with pytest.raises(RewardsLost, match="gave no answer in 3 tries .ConnectError"):
        replace(remote, attempts=3).score(requests[:1])
    with pytest.raises(UsageError, match="give a URL such as"):
        Service("rewards").score([])
