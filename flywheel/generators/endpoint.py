"""A model behind an OpenAI-compatible endpoint as a generator: `images/generations`, and `images/edits` for edits.

A server that fails, is slow or asks to wait is asked again with back-off; a picture that it refuses costs its own row.
"""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Annotated, Any

import numpy as np
from PIL import Image

from flywheel.core.endpoint import Answer, Malformed, Rejected, Server, Unanswered
from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.generator import Pixels, Undrawn, png
from flywheel.core.image import BadImage, decode
from flywheel.core.ranges import Amount, Span

_SLOWEST = 0.1  # requests a minute
OPTIONAL = ("seed", "steps", "guidance", "negative")  # settings that are sent only under a name of `names`


@dataclass(frozen=True)
class EndpointGenerator(Server):
    """See `flywheel.core.endpoint.Server` for url, model, key_variable, timeout, attempts, longest_wait.

    concurrency: requests at a time; per_minute: requests that may start in a minute, 0: any number; price: of one
    picture, in the currency of your bill. names: under which name the server takes seed, steps, guidance and negative
    (by default only `seed`; `names = {}` sends none of them); fields: further fields of each request, such as
    `{ quality = "high" }`; revision: change it when the model behind the name changes.
    """

    concurrency: Annotated[int, Span(1, 1000)] = 4
    per_minute: Amount = 0.0
    price: Amount = 0.0
    names: Mapping[str, str] = field(default_factory=lambda: {"seed": "seed"})
    fields: Mapping[str, Any] = field(default_factory=dict)
    revision: str = ""

    independent = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.per_minute < _SLOWEST:
            raise UsageError(f"per_minute is {self.per_minute}: give {_SLOWEST} or more, or 0 for any number")
        if not all(isinstance(n, str) for n in self.names.values()):
            raise UsageError(f"names is {dict(self.names)}: give a text for each")
        if unknown := set(self.names) - set(OPTIONAL):
            raise UsageError(f"names: {min(unknown)} is unknown; choose among {', '.join(OPTIONAL)}")

    @property
    def fingerprint(self) -> str:
        """Digest of address, model, revision and fields: what the server does behind them cannot be seen."""
        return digest(self.url, self.model, self.revision, dict(self.fields), dict(self.names))

    def draw(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        size: tuple[int, int],
        references: Sequence[Sequence[Pixels]] | None = None,
        masks: Sequence[Pixels | None] | None = None,
        negative: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Iterator[Pixels | Undrawn]:
        """See `flywheel.core.generator.Generator`; several requests run at a time, pictures come in order."""
        shown = references or [()] * len(prompts)
        mask = masks or [None] * len(prompts)
        settings = {"steps": steps, "guidance": guidance, "negative": negative}
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            draw = partial(self._draw, size=size, settings=settings)
            yield from pool.map(draw, prompts, seeds, shown, mask)
        finally:
            pool.shutdown(cancel_futures=True)

    def _draw(
        self,
        prompt: str,
        seed: int,
        references: Sequence[Pixels],
        mask: Pixels | None,
        *,
        size: tuple[int, int],
        settings: Mapping[str, Any],
    ) -> Pixels | Undrawn:
        body = {"model": self.model, "prompt": prompt, "n": 1, "size": f"{size[1]}x{size[0]}", **self.fields}
        for name, value in {"seed": seed, **settings}.items():
            if name in self.names and value is not None:
                body[self.names[name]] = value
        if references:
            files = [("image[]", (f"{n}.png", png(r), "image/png")) for n, r in enumerate(references)]
            if mask is not None:
                files.append(("mask", ("mask.png", _mask(mask), "image/png")))
            sent = {"data": {k: _text(v) for k, v in body.items()}, "files": files}
        else:
            sent = {"json": body}
        try:
            return self.request(
                "images/edits" if references else "images/generations", lambda r: self._picture(r, size), **sent
            )
        except Rejected as error:
            return Undrawn(str(error))
        except Unanswered as error:
            return Undrawn(str(error), again=True)

    @property
    def cost(self) -> float:
        """What the pictures that this object has drawn cost, in the currency of `price`."""
        return self.price * len(self._bought)

    @cached_property
    def _bought(self) -> list[None]:
        return []  # appending is atomic

    def _picture(self, response: Any, size: tuple[int, int]) -> Pixels:
        """The picture of a response. Errors: `Malformed` if there is none, or one of another size."""
        try:
            row = response.json()["data"][0]
            given = row.get("b64_json") or row["url"]
            inside = row.get("b64_json") or given.startswith("data:")
            picture = np.asarray(decode(_decoded(given) if inside else _download(given, self.timeout)))
        except BadImage as error:
            raise Malformed(f"the picture cannot be read: {error}") from error
        except Exception as error:  # noqa: BLE001 - whatever a wrong answer leads to
            raise Malformed(f"the answer has no picture: {type(error).__name__}: {error}") from error
        self._bought.append(None)
        if picture.shape[:2] != size:
            raise Rejected(  # the next one would cost as much and have the same size
                f"the picture has {picture.shape[1]}x{picture.shape[0]} pixels instead of {size[1]}x{size[0]}: ask for "
                "a size that the model draws (evaluation.side of the preset)"
            )
        return picture

    def _once(self, path: str, read: Callable[[Any], Answer], body: Mapping[str, Any]) -> Answer:
        _ = self._client  # made now, so that what waits below starts when it may
        self._limit.wait()  # attempts count, not pictures
        return super()._once(path, read, body)

    @cached_property
    def _limit(self) -> _Limit:
        return _Limit(60 / self.per_minute if self.per_minute else 0.0)


class _Limit:
    """Lets callers start at least `seconds` apart."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._next, self._lock = seconds, 0.0, threading.Lock()

    def wait(self) -> None:
        if not self.seconds:
            return
        with self._lock:
            start = max(self._next, time.monotonic())
            self._next = start + self.seconds
        time.sleep(max(0.0, start - time.monotonic()))


def _decoded(text: str) -> bytes:
    """The bytes of a picture in base64, alone or as a `data:` address, in one line or several."""
    encoded = text.rpartition("base64,")[2] if text.startswith("data:") else text
    return base64.b64decode("".join(encoded.split()), validate=True)


def _download(url: str, timeout: float) -> bytes:
    """A picture that the answer names by address; without the API key, as it may be another server's."""
    import httpx

    response = httpx.get(url, timeout=timeout, follow_redirects=True)
    response.raise_for_status()
    return response.content


def _mask(mask: Pixels) -> bytes:
    """A mask as the protocol wants it: transparent where the edit may change the picture."""
    opaque = np.zeros((*mask.shape[:2], 4), np.uint8)
    opaque[..., 3] = np.where(mask.reshape(*mask.shape[:2], -1)[..., 0] > 127, 0, 255)
    buffer = io.BytesIO()
    Image.fromarray(opaque).save(buffer, "PNG")
    return buffer.getvalue()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
