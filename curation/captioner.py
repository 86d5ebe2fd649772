"""A captioner behind any OpenAI-compatible vision endpoint: what it is asked, what is an answer, when to retry."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import Any

import httpx
from PIL import Image
from pydantic import BaseModel, Field, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from flywheel.scorer import BadImage, decode
from flywheel.workspace import UsageError, digest

PROMPTS = {  # the report's four kinds [S]; the wording is ours
    "general": "Describe the picture completely: subject, setting, composition, light, colours and style.",
    "text": "Describe the picture with attention to its text: transcribe every piece literally, in quotation marks, say"
    " where it stands, how it looks, and how text, symbols and layout relate.",
    "knowledge": "Describe the picture and add the background facts that an expert would give: names, places, dates,"
    " species, styles. Add only what you are sure of.",
    "structured": "The picture may be a diagram, chart or flow chart. Describe its entities, their attributes and the"
    " relations between them, in the order in which one would read them.",
}
FORM = (
    "Answer with one JSON object of these keys: caption (string: the description), objects (list of strings: the main"
    " things), style (string, such as photograph, slide, poster, comic, painting), quoted (list of strings: every text"
    " in the picture, literally, in reading order), watermark (true or false)."
)
MAX_SIDE = 1024  # pixels, long side, of the picture that is sent
_RETRIED = (408, 409, 425, 429)  # and every 5xx
_MISCONFIGURED = (401, 403, 404, 405)


class Answer(BaseModel):
    """What the model has to say about one picture."""

    caption: str = Field(min_length=1, max_length=20_000)
    objects: list[str]
    style: str
    quoted: list[str]
    watermark: bool


class Refused(ValueError):
    """This picture has no usable answer; the message says why. Asking again would not help."""


class Malformed(Refused):
    """The model answered, but nothing that can be used. Asked for once more."""


class Unanswered(Exception):
    """The endpoint did not answer in spite of retries; the picture stays to be asked."""


class _Retry(Exception):
    """An answer that may come later; `after`: seconds that the server asked to wait."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


@dataclass(frozen=True)
class Captioner:
    """Asks `model` at `endpoint` (the URL up to and including /v1) with `prompt`. One HTTP client serves all calls."""

    endpoint: str
    model: str
    prompt: str
    key: str = ""
    timeout: float = 120.0  # seconds
    attempts: int = 6
    longest_wait: float = 60.0  # seconds between two attempts
    max_tokens: int = 2048

    @property
    def version(self) -> str:
        """Version of the prompt: other words, or another form of answer, are another set of captions."""
        return digest(self.prompt, FORM, Answer.model_json_schema())[:8]

    def client(self, concurrency: int) -> httpx.AsyncClient:
        """A connection pool for this many calls at once."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        limits = httpx.Limits(max_connections=concurrency)
        return httpx.AsyncClient(headers=headers, timeout=self.timeout, limits=limits)

    async def ask(self, client: httpx.AsyncClient, image: bytes) -> Answer:
        """The checked answer for one encoded picture.

        Errors: `Refused` for this picture; `Unanswered` after the last attempt; `UsageError` when the endpoint refuses
        every call (address, key or model).
        """
        try:
            body = self._body(_jpeg(image))
        except BadImage as error:
            raise Refused(f"picture cannot be read: {error}") from error
        try:
            return parse(await self._post(client, body))
        except Malformed:  # a model that samples may do better
            return parse(await self._post(client, body))

    async def _post(self, client: httpx.AsyncClient, body: dict[str, Any]) -> Any:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((_Retry, httpx.TransportError)),
            stop=stop_after_attempt(self.attempts),
            wait=self._wait,
            reraise=True,
        )
        try:
            return await retrying(self._once, client, body)
        except (_Retry, httpx.TransportError) as error:
            raise Unanswered(f"{type(error).__name__.strip('_')}: {error}") from error

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        wanted = error.after if isinstance(error, _Retry) else 0.0
        return min(self.longest_wait, max(wanted, wait_exponential_jitter(initial=0.5, max=self.longest_wait)(state)))

    async def _once(self, client: httpx.AsyncClient, body: dict[str, Any]) -> Any:
        response = await client.post(f"{self.endpoint.rstrip('/')}/chat/completions", json=body)
        said = f"HTTP {response.status_code}: {' '.join(response.text.split())[:200]}"
        if response.status_code in _RETRIED or response.status_code >= 500:
            raise _Retry(said, _seconds(response.headers.get("retry-after", "")))
        if response.status_code in _MISCONFIGURED:
            raise UsageError(f"{self.endpoint} answers {said}: check --endpoint, --model and the key")
        if response.is_error:
            raise Refused(said)
        try:
            return response.json()
        except ValueError as error:
            raise Refused(f"the endpoint's answer is no JSON: {response.text[:200]!r}") from error

    def _body(self, jpeg: bytes) -> dict[str, Any]:
        url = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        text = {"type": "text", "text": f"{self.prompt} {FORM}"}
        schema = {"name": "picture", "schema": Answer.model_json_schema()}
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, text]}],
            "response_format": {"type": "json_schema", "json_schema": schema},
            "max_tokens": self.max_tokens,
            "temperature": 0.2,
        }


def parse(response: Any) -> Answer:
    """The answer inside a chat completion. Errors: `Malformed` that names what does not fit."""
    from curation.scorers.caption import describe

    try:
        choice = response["choices"][0]
        content = choice["message"]["content"]
    except (TypeError, KeyError, IndexError) as error:
        raise Malformed(f"no chat completion: {json.dumps(response)[:200]}") from error
    if choice.get("finish_reason") == "length":
        raise Malformed("the answer was cut off at max_tokens")
    if not isinstance(content, str) or not content.strip():
        raise Malformed(f"the model declined: {choice['message'].get('refusal') or 'empty answer'}")
    text = content.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        answer = Answer.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "answer"
        raise Malformed(f"the answer does not fit the schema: {where}: {first['msg']}") from error
    said = describe(answer.caption)
    if said["invalid"]:
        why = next((k for k in ("refusal", "boilerplate", "urls") if said[k]), "no words, or a loop")
        raise Malformed(f"the caption describes nothing ({why}): {answer.caption[:120]!r}")
    return answer


def _jpeg(image: bytes) -> bytes:
    picture = decode(image)
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()


def _seconds(header: str) -> float:
    """Seconds of a Retry-After header; 0 where it is missing or a date."""
    try:
        return max(0.0, float(header))
    except ValueError:
        return 0.0
