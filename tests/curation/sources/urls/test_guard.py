"""Addresses that a list from outside must not reach."""

from __future__ import annotations

import asyncio
import socket

import pytest

from curation.sources.urls.guard import Guard, PrivateAddress, Refused, check_url, is_public, refusal

PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "::", "::1", "fe80::1", "fe80::1%eth0",
    "fc00::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2001:db8::1", "x",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]


def test_private_and_public_addresses() -> None:
    assert [a for a in PRIVATE if is_public(a)] == [] and [a for a in PUBLIC if not is_public(a)] == []


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "0"])
def test_addresses_in_other_forms(host: str) -> None:
    with pytest.raises(Refused, match="private address"):
        check_url(f"http://{host}:80/x", allow_private=False)
    assert check_url(f"http://{host}:80/x", allow_private=True)


@pytest.mark.parametrize(
    "url", ["ftp://h/x", "file:///etc/passwd", "data:image/png;base64,x", "http://", "javascript:1"]
)
def test_other_schemes(url: str) -> None:
    with pytest.raises(Refused, match="not an http or https URL"):
        check_url(url, allow_private=True)


def test_names_are_checked_after_they_are_resolved() -> None:
    async def resolve(host: str, *, allow_private: bool) -> list[str]:
        guard = Guard(allow_private=allow_private)
        found = [entry["host"] for entry in await guard.resolve(host, 80, socket.AF_INET)]
        await guard.close()
        return found

    assert asyncio.run(resolve("localhost", allow_private=True)) == ["127.0.0.1"]
    with pytest.raises(PrivateAddress, match="localhost is 127.0.0.1"):
        asyncio.run(resolve("localhost", allow_private=False))


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async def mixed(self: object, host: str, port: int, family: int) -> list[dict[str, str]]:
        return [{"host": "8.8.8.8"}, {"host": "10.0.0.1"}]

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", mixed)
    with pytest.raises(PrivateAddress, match="10.0.0.1"):
        asyncio.run(_resolved())


async def _resolved() -> None:
    await Guard(allow_private=False).resolve("rebinding.example", 80)


def test_the_cause_of_a_failure_is_found() -> None:
    cause = PrivateAddress("private address: h is 10.0.0.1")
    error = OSError("cannot connect")
    error.__cause__ = cause
    assert refusal(error) is cause and refusal(OSError("x")) is None
