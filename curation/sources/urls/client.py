"""Fetches one URL at a time of many: attempts, redirects, limits, and what the server says about use."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from curation.sources.urls import FAILED, FETCHED, REFUSED, Fetching, Outcome
from curation.sources.urls.guard import Guard, Refused, check_url, refusal
from curation.sources.urls.hosts import Manners
from curation.sources.urls.robots import MAX_BYTES, Robots, refused_by, robots_url, tagged
from flywheel.core.container import name_of
from flywheel.core.errors import first_line

_WORTH_RETRYING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_INFLATED = ("gzip", "x-gzip", "deflate")
_BLOCK = 64 * 1024
_GIVEN_UP = 5  # failures to connect to a host in a row, after which its other URLs fail at once
_LONGEST_CRAWL_DELAY = 30.0  # seconds between requests that robots.txt may ask for


class _Again(Exception):
    """The attempt failed, and another may succeed."""

    def __init__(self, reason: str, code: int = 0, after: float = 0.0, *, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.code, self.after, self.unreachable = code, after, unreachable


class _Failed(Exception):
    """The attempt failed, and another would too. asked: whether the server was."""

    def __init__(self, reason: str, code: int = 0, *, asked: bool = True) -> None:
        super().__init__(reason)
        self.code, self.asked = code, asked


@dataclass(frozen=True)
class _Answer:
    """The end of a chain of redirects."""

    url: str
    code: int
    content_type: str
    directives: tuple[str, ...]
    image: bytes


class Client:
    """An asynchronous client with its connections; `async with` opens and closes them."""

    def __init__(self, settings: Fetching, manners: Manners) -> None:
        self._settings, self._manners = settings, manners
        self._reading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # of robots.txt, by origin
        self._rules: dict[str, Robots] = {}
        self._unreachable: Counter[str] = Counter()  # failures to connect in a row, by host
        self._at_once = asyncio.Semaphore(settings.concurrency)

    async def __aenter__(self) -> Client:
        settings = self._settings
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=Guard(allow_private=settings.allow_private), limit=settings.concurrency, ttl_dns_cache=300
            ),
            headers={"User-Agent": settings.agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None),  # each request has its own limit
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            raise_for_status=False,
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def fetch(self, url: str) -> Outcome:
        """How this URL ends, after as many attempts as are worth it."""
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await self._attempt(url)
            except Refused as error:
                return Outcome(REFUSED, str(error), attempts=attempt)
            except _OptedOut as error:
                return Outcome(REFUSED, str(error), error.code, attempt, directives=error.directives)
            except _Failed as error:
                return Outcome(FAILED, str(error), error.code, attempt - (not error.asked))
            except _Again as error:
                last = attempt >= self._settings.attempts or error.after > self._settings.longest_wait
                if last or (error.unreachable and self._is_given_up(url)):
                    return Outcome(FAILED, str(error), error.code, attempt)
                backoff = self._settings.backoff * 2 ** (attempt - 1)
                await asyncio.sleep(min(self._settings.longest_wait, max(backoff, error.after)))
            else:
                made = Outcome(FETCHED, "", answer.code, attempt, answer.url, answer.content_type, answer.directives)
                return replace(made, image=answer.image)

    async def _attempt(self, url: str) -> _Answer:
        place, said = url, set[str]()
        for _ in range(self._settings.redirects + 1):
            host = check_url(place, allow_private=self._settings.allow_private)
            rules = await self._robots(place)
            said |= set(rules.directives(place, self._settings.token))
            if not rules.allows(place, self._settings.agent):
                raise _OptedOut("robots.txt disallows it", said)
            self._obey(said, "robots.txt")
            async with self._answer(place, host, self._delay(rules)) as answer:
                if answer.status in _REDIRECTS:
                    place = _target(place, answer)
                    continue
                said |= set(tagged(answer.headers.items(), self._settings.token))
                self._obey(said, "X-Robots-Tag", answer.status)
                image = await self._picture(answer)
                kind = answer.headers.get("Content-Type", "")[:200]
                return _Answer(place, answer.status, kind, tuple(sorted(said)), image)
        raise _Failed(f"more than {self._settings.redirects} redirects")

    def _obey(self, said: set[str], where: str, code: int = 0) -> None:
        if directive := refused_by(said, self._settings.opt_outs):
            raise _OptedOut(f"opted out: {directive} in {where}", said, code)

    def _delay(self, rules: Robots) -> float:
        return max(self._settings.delay, min(rules.delay(self._settings.agent), _LONGEST_CRAWL_DELAY))

    @asynccontextmanager
    async def _answer(self, url: str, host: str, delay: float) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to one request, within the limits of its host; its errors in terms of this module."""
        if self._is_given_up(url):
            raise _Failed(f"{host} does not answer: not asked again after {_GIVEN_UP} failures in a row", asked=False)
        await self._manners.enter(host, delay)
        try:
            async with self._at_once, asyncio.timeout(self._settings.timeout):
                async with self._session.get(url, allow_redirects=False) as answer:
                    if answer.status not in _REDIRECTS and answer.status != 200:
                        await self._raise_for(answer, host)
                    yield answer
                    self._unreachable.pop(host, None)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            raise self._judged(error, host) from error
        finally:
            await self._manners.leave(host)

    async def _raise_for(self, answer: aiohttp.ClientResponse, host: str) -> None:
        self._unreachable.pop(host, None)
        reason = f"status {answer.status}"
        if answer.status not in _WORTH_RETRYING:
            raise _Failed(reason, answer.status)
        after = _retry_after(answer.headers.get("Retry-After"))
        if after:
            await self._manners.pause(host, min(after, self._settings.longest_wait))
            reason += f", and asks to wait {after:.0f} s"
        raise _Again(reason, answer.status, after)

    def _judged(self, error: Exception, host: str) -> Exception:
        if refused := refusal(error):
            return Refused(str(refused))
        if isinstance(error, TimeoutError):
            self._unreachable[host] += 1
            return _Again(f"no whole answer within {self._settings.timeout:g} s", unreachable=True)
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError | ssl.SSLError):
            return _Failed(f"TLS: {_short(error)}")
        if isinstance(error, aiohttp.ClientConnectorError):
            self._unreachable[host] += 1
            return _Again(f"cannot connect: {_short(error)}", unreachable=True)
        if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
            return _Again(f"the connection broke: {_short(error)}")
        return _Failed(f"not an answer of HTTP: {_short(error)}")

    def _is_given_up(self, url: str) -> bool:
        return self._unreachable[urlsplit(url).hostname or ""] >= _GIVEN_UP

    # What an answer holds --------------------------------------------------------------------------------------------
    async def _picture(self, answer: aiohttp.ClientResponse) -> bytes:
        """The bytes of a picture. Errors: `Refused` beyond the size limit, `_Failed` for anything but a picture."""
        data = await self._body(answer, self._settings.max_bytes)
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        if not data:
            raise _Failed("zero bytes", answer.status)
        if not name_of(data):
            raise _Failed(f"not a picture: the answer says {kind or 'nothing about its type'}", answer.status)
        return data

    async def _body(self, answer: aiohttp.ClientResponse, most: int) -> bytes:
        """All bytes of the answer, decompressed. Errors: `Refused` as soon as there are more than `most`."""
        if (answer.content_length or 0) > most:
            raise Refused(f"too large: {answer.content_length} bytes is over {most}")
        coding = answer.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("identity", "", *_INFLATED):
            raise _Failed(f"unasked-for content encoding {coding}", answer.status)
        inflate = zlib.decompressobj(47 if "gzip" in coding else 15) if coding in _INFLATED else None
        parts, size = [], 0
        async for part in answer.content.iter_chunked(_BLOCK):
            try:
                part = inflate.decompress(part, most + 1 - size) if inflate else part
            except zlib.error as error:
                raise _Failed(f"damaged {coding} encoding: {error}", answer.status) from error
            size += len(part)
            if size > most:
                raise Refused(f"too large: over {most} bytes")
            parts.append(part)
        return b"".join(parts)

    # robots.txt ------------------------------------------------------------------------------------------------------
    async def _robots(self, url: str) -> Robots:
        """The rules for a URL; they are read once per host. Errors: `_Again` where they cannot be read (RFC 9309)."""
        if not self._settings.robots:
            return Robots()
        place = robots_url(url)
        async with self._reading[place]:
            if place not in self._rules:
                text = await self._manners.rules(place)
                if text is None:
                    text = await self._read_rules(place)
                    await self._manners.keep_rules(place, text)
                self._rules[place] = Robots(text)
            return self._rules[place]

    async def _read_rules(self, place: str) -> str:
        try:
            for _ in range(self._settings.redirects + 1):
                host = check_url(place, allow_private=self._settings.allow_private)
                async with self._answer(place, host, self._settings.delay) as answer:
                    if answer.status in _REDIRECTS:
                        place = _target(place, answer)
                        continue
                    data = await answer.content.read(MAX_BYTES)
                    while len(data) < MAX_BYTES and (more := await answer.content.read(MAX_BYTES - len(data))):
                        data += more
                    return data.decode("utf-8-sig", "replace")
        except _Failed as error:
            if 400 <= error.code < 500:
                return ""
            raise _Failed(f"robots.txt: {error}", error.code, asked=error.asked) from error
        except _Again as error:
            raise _Again(f"robots.txt: {error}", error.code, error.after, unreachable=error.unreachable) from error
        return ""  # too many redirects count as none


class _OptedOut(Exception):
    """The server does not want its picture to be used."""

    def __init__(self, reason: str, directives: set[str], code: int = 0) -> None:
        super().__init__(reason)
        self.directives, self.code = tuple(sorted(directives)), code


def _target(url: str, answer: aiohttp.ClientResponse) -> str:
    location = answer.headers.get("Location", "")
    if not location:
        raise _Failed("a redirect without a location", answer.status)
    return urljoin(url, location)


def _retry_after(value: str | None) -> float:
    """Seconds that a server asks to wait; 0 if it does not say."""
    if not value:
        return 0.0
    if value.strip().isdigit():
        return float(value.strip())
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())


def _short(error: Any) -> str:
    cause = getattr(error, "os_error", None) or error
    return str(getattr(cause, "strerror", None) or first_line(cause))[:200]
