"""Which addresses may be asked: a list from outside must not reach this machine or its network (SSRF).

Names are resolved once per connection, and the connection goes to the address that was checked.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


class Refused(Exception):
    """The URL is not to be fetched; the message says why."""


class PrivateAddress(Refused, OSError):
    """A host's address is not public. An `OSError`, so that the client closes the connection as for any other."""


def check_url(url: str, *, allow_private: bool) -> str:
    """The host of a URL that may be asked. Errors: `Refused` for other schemes, no host, or a private IP address."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise Refused(f"not a URL: {error}") from error
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise Refused("not an http or https URL with a host")
    if any(ord(c) <= 32 or ord(c) == 127 for c in host):
        raise Refused("not a URL: its host has a space or control character")
    if not allow_private and (address := _literal(host)) and not is_public(address):
        raise Refused(f"private address: {host}")
    return host


def is_public(address: str) -> bool:
    """True for an address of the public internet, also one that is wrapped in IPv6."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not ip.is_unspecified


class Guard(AbstractResolver):
    """A resolver that refuses a host if any of its addresses is not public."""

    def __init__(self, *, allow_private: bool) -> None:
        self._resolver = ThreadedResolver()
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The host's addresses. Errors: `PrivateAddress`, `OSError`."""
        found = await self._resolver.resolve(host, port, family)
        if not self._allow_private:
            for entry in found:
                if not is_public(entry["host"]):
                    raise PrivateAddress(f"private address: {host} is {entry['host']}")
        return found

    async def close(self) -> None:
        """Nothing to close."""
        await self._resolver.close()


def refusal(error: BaseException) -> Refused | None:
    """The refusal that caused an error of the client, if any."""
    seen: Any = error
    while seen is not None:
        if isinstance(seen, Refused):
            return seen
        seen = getattr(seen, "os_error", None) or seen.__cause__
    return None


def _literal(host: str) -> str | None:
    """The IP address that a host is written as, in any of the forms that a resolver takes without asking anybody."""
    try:
        return str(ipaddress.ip_address(host.strip("[]").partition("%")[0]))
    except ValueError:
        pass
    try:  # 127.1, 0x7f000001, 2130706433
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None
