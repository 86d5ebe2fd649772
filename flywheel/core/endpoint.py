"""OpenAI-compatible endpoints: requests are retried with back-off; chat answers are checked by a schema, and cached."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

from flywheel.core.errors import BadImage, UsageError
from flywheel.core.files import digest, read_json, write_json
from flywheel.core.ranges import Span, require_ranges

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_HOUR = 3600
REFUSED = frozenset({401, 403, 404, 405})  # the address, the model or the key is wrong: retries cannot help


class Unanswered(Exception):
    """No usable answer after all retries; this item alone is skipped, and asked again next time."""


class Rejected(Unanswered):
    """Asking again cannot help: the question was rejected, or every answer to it was malformed."""


class _Retry(Exception):
    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after  # seconds that the server asked to wait


class Malformed(_Retry):
    """The answer has not the form that was asked for; the next one may."""


Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Server:
    """`url` up to and including `/v1`. `key_variable` names the environment variable that holds the API key."""

    url: str
    model: str
    key_variable: str = ""
    timeout: Annotated[float, Span(0, _HOUR, above=True)] = 120.0  # seconds per attempt
    attempts: Annotated[int, Span(1, 1000)] = 5
    longest_wait: Annotated[float, Span(0, _HOUR)] = 30.0  # seconds between two attempts

    def __post_init__(self) -> None:
        require_ranges(self)
        if not self.url.startswith(("http://", "https://")) or not self.model:
            raise UsageError(f"endpoint {self.url!r}: give url (http://…/v1) and model")
        if self.key_variable and not os.environ.get(self.key_variable):
            raise UsageError(f"endpoint {self.url}: set the environment variable {self.key_variable} to its API key")

    @cached_property
    def _client(self) -> Any:
        import httpx

        key = os.environ.get(self.key_variable) if self.key_variable else None
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url.rstrip("/") + "/", headers=headers, timeout=self.timeout)

    def request(self, path: str, read: Callable[[Any], Answer], **body: Any) -> Answer:
        """POST to `path` (`body`: as of `httpx.Client.post`) and `read` the response. Thread-safe.

        `read` raises `Malformed` for an answer that is worth another attempt. Errors: `UsageError` when the endpoint
        refuses key, model or address; `Unanswered` when retries run out; `Rejected` when the request or its answers are
        the cause.
        """
        from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

        backoff = wait_exponential_jitter(initial=min(0.5, self.longest_wait), max=self.longest_wait)

        def wait(state: Any) -> float:
            error = state.outcome.exception()
            return min(self.longest_wait, max(backoff(state), getattr(error, "after", 0.0)))

        retrying = Retrying(
            retry=retry_if_exception_type(_Retry), stop=stop_after_attempt(self.attempts), wait=wait, reraise=False
        )
        try:
            return retrying(self._once, path, read, body)
        except RetryError as error:
            why = error.last_attempt.exception()
            kind = Rejected if isinstance(why, Malformed) else Unanswered
            raise kind(f"{self.url} gave no usable answer in {self.attempts} attempts: {why}") from error

    def _once(self, path: str, read: Callable[[Any], Answer], body: Mapping[str, Any]) -> Answer:
        import httpx

        try:
            response = self._client.post(path, **body)
        except httpx.HTTPError as error:
            raise _Retry(f"{type(error).__name__}: {error}") from error
        if response.status_code in REFUSED:
            raise UsageError(f"{self.url} refuses the request (HTTP {response.status_code}): check url, model and key")
        if response.status_code in RETRIED:
            raise _Retry(f"HTTP {response.status_code}", _seconds(response.headers.get("Retry-After")))
        if response.status_code >= 400:  # this request is the cause: asking again cannot help
            raise Rejected(f"{self.url} rejects the question (HTTP {response.status_code}): {response.text[:200]}")
        return read(response)


@dataclass(frozen=True)
class Endpoint(Server):
    """JSON answers from a chat model.

    Answers are cached in the folder `cache` by the content of the question, so that nothing is asked twice; None turns
    this off.
    """

    cache: Path | None = field(default=None, compare=False)

    def ask(self, messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> Any:
        """The model's JSON answer, valid under the JSON `schema`. Thread-safe. Errors: as `request`."""
        path = self.cache / f"{digest(self.model, messages, schema)}.json" if self.cache else None
        if path and path.exists():
            return read_json(path)
        form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
        body = {"model": self.model, "messages": messages, "temperature": 0, "seed": 0, "response_format": form}
        answer = self.request("chat/completions", lambda response: _checked(response.text, schema), json=body)
        if path:
            write_json(path, answer)
        return answer


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:  # a date, the header's other form: wait as usual
        return 0.0


def _checked(text: str, schema: Mapping[str, Any]) -> Any:
    import jsonschema

    try:
        content = str(json.loads(text)["choices"][0]["message"]["content"] or "").strip()
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:  # another program's, or a proxy's
        raise _Retry(f"this is no answer of an OpenAI-compatible server: {text[:100]!r}") from error
    try:
        answer = json.loads(content.removeprefix("```json").removeprefix("```").removesuffix("```"))
        jsonschema.validate(answer, schema)
    except jsonschema.ValidationError as error:
        raise Malformed(f"the answer does not fit the schema: {error.message[:200]}") from error
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the answer is not JSON: {type(error).__name__}: {error}") from error
    return answer


def image_part(image: bytes) -> dict[str, Any]:
    """An encoded image as part of a chat message; what models read in another way than `decode` goes as PNG."""
    shown = _shown(image)
    kind = "png" if shown.startswith(b"\x89PNG") else "webp" if shown[8:12] == b"WEBP" else "jpeg"
    data = base64.b64encode(shown).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}}


def _shown(image: bytes) -> bytes:
    """The bytes of an upright 8-bit picture in a usual format, without alpha or profile; any other one decoded."""
    from flywheel.core.image import decode, describe_header, open_image

    try:
        header = describe_header(open_image(image), image)
        usual = header.format in ("PNG", "JPEG", "WEBP") and header.mode in ("RGB", "L") and header.depth == 8
        if usual and header.orientation == 1 and header.frames == 1 and not header.alpha and not header.profile:
            return image
        buffer = io.BytesIO()
        decode(image).save(buffer, "PNG")
    except BadImage:
        return image  # what is asked about it says so
    return buffer.getvalue()
