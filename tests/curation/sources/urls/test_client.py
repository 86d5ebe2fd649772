"""One URL at a time, from a server that misbehaves in every way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from curation.sources.urls import FAILED, FETCHED, REFUSED, Fetching, Outcome
from curation.sources.urls.client import Client
from curation.sources.urls.hosts import Hosts, Manners
from tests.curation.sources.urls.server import Behaviour, picture, serving

QUICK = Fetching(
    allow_private=True, timeout=1.0, backoff=0.05, delay=0.0, per_host=8, max_bytes=200_000, longest_wait=2.0
)


def ask(*urls: str, settings: Fetching = QUICK) -> list[Outcome]:
    """The outcomes, all asked for at once."""

    async def run() -> list[Outcome]:
        async with Client(settings, Manners(Hosts(settings.per_host, 60.0))) as client:
            return await asyncio.gather(*map(client.fetch, urls))

    return asyncio.run(run())


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def server(behaviour: Behaviour) -> Iterator[str]:
    with serving(behaviour) as address:
        yield address


def test_a_picture_arrives_as_it_is(server: str, behaviour: Behaviour) -> None:
    plain, moved, packed = ask(f"{server}/ok/a.png", f"{server}/moved/x", f"{server}/packed/x")
    assert (plain.status, plain.code, plain.attempts, plain.image) == (FETCHED, 200, 1, picture("a.png"))
    assert (plain.content_type, plain.final_url) == ("image/png", f"{server}/ok/a.png")
    assert (moved.image, moved.final_url) == (picture("moved.png"), f"{server}/ok/moved.png")
    assert packed.image == picture("packed")
    assert behaviour.agents == {"image-flywheel/0.2"} and behaviour.asked["/robots.txt"] == 1


# Way to misbehave → how it ends, attempts, and what is said.
ENDS = {
    "slow-headers": (FAILED, 3, "no whole answer within 1 s"),
    "slow-body": (FAILED, 3, "no whole answer within 1 s"),
    "endless": (REFUSED, 1, "too large: over 200000 bytes"),
    "huge": (REFUSED, 1, "too large: 1000000000000 bytes"),
    "lies-long": (FAILED, 3, "connection broke"),
    "broken": (FAILED, 3, "status 500"),
    "busy-for-long": (FAILED, 1, "status 429, and asks to wait 86400 s"),
    "gone": (FAILED, 1, "status 410"),
    "loop": (FAILED, 1, "more than 5 redirects"),
    "nowhere": (FAILED, 1, "a redirect without a location"),
    "to-file": (REFUSED, 1, "not an http or https URL"),
    "html": (FAILED, 1, "not a picture: the answer says text/html"),
    "empty": (FAILED, 1, "zero bytes"),
    "reset": (FAILED, 3, "connection broke"),
    "reset-body": (FAILED, 3, "connection broke"),
    "nonsense": (FAILED, 1, "not an answer of HTTP"),
    "bomb": (REFUSED, 1, "too large: over 200000 bytes"),
    "packed-otherwise": (FAILED, 1, "content encoding br"),
}


@pytest.mark.parametrize("way", ENDS)
def test_what_misbehaves_ends(server: str, behaviour: Behaviour, way: str) -> None:
    settings = replace(QUICK, max_bytes=2_000_000) if way == "slow-body" else QUICK
    (outcome,) = ask(f"{server}/{way}/x", settings=settings)
    status, attempts, reason = ENDS[way]
    assert (outcome.status, outcome.attempts, outcome.image) == (status, attempts, None), outcome
    assert reason in outcome.reason, outcome
    asked = sum(count for path, count in behaviour.asked.items() if path == f"/{way}/x")
    assert attempts <= asked <= 6  # the client asks again by itself where a kept connection was closed meanwhile


def test_a_body_longer_than_it_says_is_never_more_than_that(server: str) -> None:
    (outcome,) = ask(f"{server}/lies-short/x")  # whether the rest is noticed is a matter of when it arrives
    assert outcome.image in (None, picture("x")[:100])


def test_what_is_worth_it_is_asked_again(server: str, behaviour: Behaviour) -> None:
    began = time.monotonic()
    busy, unstable = ask(f"{server}/busy/x", f"{server}/unstable/x")
    assert (busy.status, busy.attempts, unstable.status, unstable.attempts) == (FETCHED, 2, FETCHED, 3)
    first, second = behaviour.times["/busy/x"]
    assert second - first >= 1.0 and time.monotonic() - began < 10  # Retry-After


def test_private_addresses_are_refused_at_every_hop(server: str) -> None:
    public = replace(QUICK, allow_private=False)
    port = server.rpartition(":")[2]
    hosts = ("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0", "10.0.0.1")
    for outcome in ask(*(f"http://{host}:{port}/ok/a.png" for host in hosts), settings=public):
        assert outcome.status == REFUSED and "private address" in outcome.reason, outcome
    (outcome,) = ask("ftp://example.org/x.png", settings=public)
    assert outcome.status == REFUSED


@pytest.mark.parametrize("way", ["to-loopback", "to-metadata"])
def test_redirects_to_private_addresses_are_refused(
    server: str, behaviour: Behaviour, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself counts as public here; where it sends the client does not."""
    from curation.sources.urls import guard

    real = guard.is_public
    allowed = "127.0.0.1"
    monkeypatch.setattr(guard, "is_public", lambda address: address == allowed or real(address))
    if way == "to-loopback":  # its name is resolved to the address that is allowed here: forbid that again
        monkeypatch.setattr(guard.Guard, "resolve", _refuse)
    (outcome,) = ask(f"{server}/{way}/x", settings=replace(QUICK, allow_private=False))
    assert outcome.status == REFUSED and "private address" in outcome.reason, outcome
    assert behaviour.asked[f"/{way}/x"] == 1


async def _refuse(self: object, host: str, port: int = 0, family: int = 0) -> list[object]:
    from curation.sources.urls.guard import PrivateAddress

    raise PrivateAddress(f"private address: {host} is 127.0.0.1")


def test_opt_outs_are_obeyed_and_recorded() -> None:
    rules = "User-agent: *\nDisallow: /private/\n\nUser-agent: otherbot\nDisallow: /\n"
    with serving(behaviour := Behaviour(rules)) as server:
        urls = [f"{server}/{way}/x.png" for way in ("ok", "private", "noai", "not-for-others")]
        allowed, disallowed, noai, others = ask(*urls)
        assert (allowed.status, others.status, others.directives) == (FETCHED, FETCHED, ())
        assert (disallowed.status, disallowed.reason) == (REFUSED, "robots.txt disallows it")
        assert behaviour.asked["/private/x.png"] == 0
        assert (noai.status, noai.directives) == (REFUSED, ("noai", "noimageai"))
        assert noai.reason == "opted out: noai in X-Robots-Tag"
        ignoring = replace(QUICK, robots=False, opt_outs=())
        for outcome in ask(*urls, settings=ignoring):
            assert outcome.status == FETCHED, outcome
        assert ask(urls[2], settings=ignoring)[0].directives == ("noai", "noimageai")  # recorded all the same


def test_robots_that_cannot_be_read_forbid_for_now() -> None:
    with serving(Behaviour("User-agent: *", robots_status=503)) as server:
        (outcome,) = ask(f"{server}/ok/x.png")
        assert (outcome.status, outcome.code) == (FAILED, 503) and "robots.txt: status 503" in outcome.reason
    with serving(Behaviour("User-agent: *\nDisallow: /", robots_status=403)) as server:
        assert ask(f"{server}/ok/x.png")[0].status == FETCHED  # RFC 9309: a refusal means no rules


def test_directives_in_robots_txt() -> None:
    with serving(Behaviour("User-agent: *\nContent-Signal: search=yes, ai-train=no\nAllow: /\n")) as server:
        (outcome,) = ask(f"{server}/ok/x.png")
        assert (outcome.status, outcome.reason) == (REFUSED, "opted out: noai in robots.txt")


def test_limits_per_host_hold(server: str, behaviour: Behaviour) -> None:
    behaviour.hold = 0.1
    gentle = replace(QUICK, per_host=2, delay=0.05, robots=False)
    urls = [f"{server}/ok/{n}.png" for n in range(8)]
    assert {o.status for o in ask(*urls, settings=gentle)} == {FETCHED}
    starts = sorted(t for times in behaviour.times.values() for t in times)
    assert behaviour.most_at_once <= 2
    assert min(b - a for a, b in zip(starts, starts[1:])) > 0.02 and starts[-1] - starts[0] >= 7 * 0.04


def test_a_host_that_is_down_is_given_up() -> None:
    began = time.monotonic()
    outcomes = ask(*(f"http://127.0.0.1:9/{n}.png" for n in range(40)), settings=replace(QUICK, robots=False))
    assert {o.status for o in outcomes} == {FAILED} and time.monotonic() - began < 10
    assert any("cannot connect" in o.reason for o in outcomes) and any("not asked again" in o.reason for o in outcomes)
    outcome = ask("http://no-such-host.invalid/x.png")[0]
    assert outcome.status == FAILED and "cannot connect" in outcome.reason


ODD = ["", "x", "http://", "http:///x", "http://[bad/x", "http://a b/x", "http://h:99999/x", "//h/x", "http://h\x00/x"]


@pytest.mark.parametrize("url", ODD)
def test_what_is_no_url(url: str) -> None:
    (outcome,) = ask(url)
    assert outcome.status == REFUSED and outcome.reason, outcome
