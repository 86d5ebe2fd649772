"""Rewards as reinforcement learning sees them: named scores of pictures, computed here or by a service over HTTP."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flywheel.scorer import Item
from flywheel.workspace import UsageError

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


@dataclass(frozen=True)
class Service:
    """Rewards of a service at `url` (`flywheel rl serve`): POST /score as JSON, pictures as base64.

    Answers of 502 to 504 and refused or broken connections are tried again `retries` times, waiting twice as long each
    time. Errors: `RewardsLost` after the last try, `UsageError` for an answer that is no answer.
    """

    url: str
    retries: int = 5
    backoff: float = 0.5  # seconds before the second retry
    timeout: float = 120.0  # seconds of one request
    workers: int = 4
    names: tuple[str, ...] = field(init=False)
    _pool: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        import urllib3

        retry = urllib3.Retry(
            self.retries, backoff_factor=self.backoff, status_forcelist=(502, 503, 504), allowed_methods=None
        )
        pool = urllib3.PoolManager(maxsize=self.workers, retries=retry, timeout=self.timeout)
        object.__setattr__(self, "_pool", pool)
        object.__setattr__(self, "names", tuple(self._ask("GET", "rewards")["rewards"]))

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """See `Rewards`."""
        found = self._ask("POST", "score", {"requests": [encode(r) for r in requests]})["scores"]
        if len(found) != len(requests) or any(set(row) != set(self.names) for row in found):
            raise UsageError(f"reward service {self.url} answered {len(found)} rows for {len(requests)} pictures")
        return found

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        import urllib3

        try:
            answer = self._pool.request(method, f"{self.url.rstrip('/')}/{path}", json=body)
        except urllib3.exceptions.HTTPError as error:
            reason = str(getattr(error, "reason", None) or error)
            raise RewardsLost(
                f"the reward service at {self.url} does not answer after {self.retries + 1} tries ({reason})"
            ) from error
        if answer.status != 200:
            raise UsageError(f"reward service {self.url} answered {answer.status}: {answer.data.decode()[:300]}")
        try:
            return json.loads(answer.data)
        except ValueError as error:
            raise UsageError(f"{self.url} is no reward service: its answer is not JSON") from error


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
