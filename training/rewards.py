"""Rewards of reinforcement learning: named scores of pictures, computed in this process or by an HTTP service."""

from __future__ import annotations

import base64
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from flywheel.core.errors import UsageError
from flywheel.core.scorer import Item

Scores = Mapping[str, float | None]
"""Reward name → score of one picture, larger is better; None if the reward does not apply or could not be computed."""


@dataclass(frozen=True)
class Request:
    """One picture to score: the item that scorers see, and the prompt's checks."""

    item: Item
    checks: Sequence[Mapping[str, Any]] = ()


class Rewards(Protocol):
    """`names`: of all rewards it gives. `workers`: how many calls of `score` may run in parallel."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def workers(self) -> int: ...

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Scores of each request, in order. Errors: `RewardsLost` when scoring is unavailable."""
        ...


def numbers(rows: Sequence[Scores], names: Sequence[str], pictures: int) -> list[list[float]]:
    """Scores of `pictures` pictures as numbers [pictures][names]; NaN where there is none.

    Errors: as `per_picture`, and `UsageError` naming the reward for a value that is not one number.
    """
    return [[_number(name, row.get(name)) for name in names] for row in per_picture(rows, pictures)]


def per_picture(rows: Sequence[Scores], pictures: int) -> Sequence[Scores]:
    """The rows as they are. Errors: `UsageError` unless each of `pictures` pictures has one, a table of numbers."""
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        raise UsageError(f"the rewards gave {str(rows)[:80]!r}: give a list with one {{reward: number}} per picture")
    if len(rows) != pictures:
        raise UsageError(
            f"the rewards gave {len(rows)} rows for {pictures} pictures: give one row per picture, in order"
        )
    return rows


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError("a text")
        return as_number(None if value is None else float(value))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UsageError(
            f"reward {name!r} gave {type(value).__name__} {str(value)[:80]!r} for a picture: give one number, or None"
        ) from error


def not_finite(rows: Sequence[Scores]) -> Counter[str]:
    """How often each reward was infinite or not a number; None, for a picture that it does not judge, is neither."""
    return Counter(n for row in rows for n, v in row.items() if v is not None and math.isnan(_number(n, v)))


class RewardsLost(UsageError):
    """Scoring is unavailable: training stops with a checkpoint, and resumes when it is run again."""


TOKEN_VARIABLE = "FLYWHEEL_REWARDS_TOKEN"  # environment variable of service and client
RETRIED = frozenset({429, 500, 502, 503, 504})


class _Again(Exception):
    """A failure that may be temporary."""


@dataclass(frozen=True)
class Service:
    """Rewards of a service at `url` (`flywheel serve rewards`): POST /score as JSON, pictures as base64.

    Failed connections and status codes in `RETRIED` are tried again, after waits that double. Errors: `RewardsLost`
    after the last attempt, `UsageError` for an invalid answer. The token in FLYWHEEL_REWARDS_TOKEN is sent along.
    """

    url: str
    attempts: int = 6
    backoff: float = 0.5  # seconds before the second attempt
    timeout: float = 120.0  # seconds of one attempt
    workers: int = 4

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Rewards that the service gives; requested once."""
        answer = self.ask("GET", "rewards")
        names = answer.get("rewards") if isinstance(answer, dict) else None
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            raise UsageError(f"{self.url} is not a reward service: it lists no rewards; check the URL")
        return tuple(names)

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """See `Rewards`."""
        answer = self.ask("POST", "score", {"requests": [encode(r) for r in requests]})
        rows = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UsageError(
                f'reward service {self.url} answered in another shape than {{"scores": [{{name: number}}, …]}}: check'
                " the URL and its version"
            )
        if len(rows) != len(requests):
            raise UsageError(f"reward service {self.url} answered {len(rows)} rows for {len(requests)} pictures")
        for row in rows:
            if different := set(row) ^ set(self.names):
                raise UsageError(f"reward service {self.url} gave other rewards than it lists: {min(different)!r}")
        return rows

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
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{self.url} is not a reward service: its answer is not JSON; check the URL") from error

    @cached_property
    def _client(self) -> Any:
        import httpx

        token = os.environ.get(TOKEN_VARIABLE)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url.rstrip("/") + "/", headers=headers, timeout=self.timeout)


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
    """NaN for a value that is missing or not finite."""
    return value if value is not None and math.isfinite(value) else math.nan
