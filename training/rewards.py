"""Rewards as reinforcement learning sees them: named scores of pictures, computed here or by a service over HTTP."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from flywheel.core.errors import UsageError
from flywheel.core.scorer import Item

Scores = Mapping[str, float | None]
"""Reward name → score of one picture, larger is better; None where the reward does not apply or could not be had."""


@dataclass(frozen=True)
class Request:
    """One picture to score: the item that scorers see, and the prompt's checks."""

    item: Item
    checks: Sequence[Mapping[str, Any]] = ()


class Rewards(Protocol):
    """`names`: of every reward it can give. `workers`: calls of `score` that may run at the same time."""

    names: tuple[str, ...]
    workers: int

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Scores of each request, in order. Errors: `RewardsLost` when none can be had now."""
        ...


class RewardsLost(UsageError):
    """No scores can be had: training stops, keeps a checkpoint, and goes on when it is run again."""


RETRIED = frozenset({429, 500, 502, 503, 504})


class _Again(Exception):
    """A stumble that may pass."""


@dataclass(frozen=True)
class Service:
    """Rewards of a service at `url` (`flywheel rl serve`): POST /score as JSON, pictures as base64.

    Refused or broken connections and answers of `RETRIED` are tried again, waiting twice as long each time. Errors:
    `RewardsLost` after the last attempt, `UsageError` for an answer that is no answer.
    """

    url: str
    attempts: int = 6
    backoff: float = 0.5  # seconds before the second attempt
    timeout: float = 120.0  # seconds of one attempt
    workers: int = 4

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Rewards that the service gives; asked once."""
        return tuple(self.ask("GET", "rewards")["rewards"])

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """See `Rewards`."""
        found = self.ask("POST", "score", {"requests": [encode(r) for r in requests]})["scores"]
        if len(found) != len(requests) or any(set(row) != set(self.names) for row in found):
            raise UsageError(f"reward service {self.url} answered {len(found)} rows for {len(requests)} pictures")
        return found

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer. Thread-safe."""
        from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

        retrying = Retrying(
            retry=retry_if_exception_type(_Again),
            stop=stop_after_attempt(self.attempts),
            wait=wait_exponential(multiplier=self.backoff),
        )
        try:
            return retrying(self._once, method, path, body)
        except RetryError as error:
            why = error.last_attempt.exception()
            raise RewardsLost(
                f"the reward service at {self.url} gave no answer in {self.attempts} tries ({why})"
            ) from why

    def _once(self, method: str, path: str, body: Any) -> Any:
        import httpx

        try:
            answer = self._client.request(method, path, json=body)
        except httpx.UnsupportedProtocol as error:
            raise UsageError(f"reward service {self.url!r}: give a URL such as http://localhost:8400") from error
        except httpx.HTTPError as error:
            raise _Again(f"{type(error).__name__}: {error}") from error
        if answer.status_code in RETRIED:
            raise _Again(f"HTTP {answer.status_code}")
        if answer.status_code != 200:
            raise UsageError(f"reward service {self.url} answered HTTP {answer.status_code}: {answer.text[:300]}")
        try:
            return answer.json()
        except ValueError as error:
            raise UsageError(f"{self.url} is no reward service: its answer is not JSON") from error

    @cached_property
    def _client(self) -> Any:
        import httpx

        return httpx.Client(base_url=self.url.rstrip("/") + "/", timeout=self.timeout)


def encode(request: Request) -> dict[str, Any]:
    """A request as JSON values."""
    item = request.item
    pictures = [base64.b64encode(b).decode() for b in (item.image, *item.references)]
    return {
        "image": pictures[0],
        "references": pictures[1:],
        "caption": item.caption,
        "task": item.task,
        "checks": [dict(c) for c in request.checks],
    }


def decode(values: Mapping[str, Any]) -> Request:
    """The inverse of `encode`. Errors: `ValueError` or `KeyError` for anything else."""
    image, *references = (base64.b64decode(b, validate=True) for b in (values["image"], *values["references"]))
    item = Item(image=image, caption=values["caption"], task=values["task"], references=tuple(references))
    return Request(item, tuple(values["checks"]))


def as_number(value: float | None) -> float:
    """NaN for what is missing or not finite."""
    return value if value is not None and math.isfinite(value) else math.nan
