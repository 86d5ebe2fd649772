"""Manners towards hosts, shared by all tasks: requests at once, delay between them, pauses, and their robots.txt."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_MOST_RULES = 20_000  # hosts whose robots.txt is remembered
_SOON = 0.05  # seconds after which a refused caller may ask again, at least
_LONGEST_SLEEP = 1.0  # seconds: a slot may come free before its time


@dataclass
class _Host:
    slots: list[float] = field(default_factory=list)  # when the slot of each request ends by itself
    ready: float = 0.0  # no request before this time


class Hosts:
    """Slots of every host. A method never waits, so that one busy host holds up no other.

    A slot that nobody gives back ends by itself: its task may have died.
    """

    def __init__(self, per_host: int, lease: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_host, self._lease, self._clock = per_host, lease, clock
        self._hosts: dict[str, _Host] = {}
        self._rules: OrderedDict[str, str] = OrderedDict()

    def take(self, host: str, delay: float) -> float:
        """0.0: a request may start now, and `release` must follow. Otherwise, seconds after which to ask again.

        delay: least seconds from this request's start to the next one's.
        """
        now, entry = self._clock(), self._hosts.setdefault(host, _Host())
        entry.slots = [end for end in entry.slots if end > now]
        if now < entry.ready:
            return max(_SOON, entry.ready - now)
        if len(entry.slots) >= self._per_host:
            return _SOON
        entry.slots.append(now + self._lease)
        entry.ready = now + delay
        return 0.0

    def release(self, host: str) -> None:
        """Give a slot back."""
        entry = self._hosts.get(host)
        if entry and entry.slots:
            entry.slots.pop(0)

    def pause(self, host: str, seconds: float) -> None:
        """No further request to this host for some time: it asked for that."""
        entry = self._hosts.setdefault(host, _Host())
        entry.ready = max(entry.ready, self._clock() + seconds)

    def rules(self, origin: str) -> str | None:
        """The robots.txt that somebody has read; None if nobody has."""
        return self._rules.get(origin)

    def keep_rules(self, origin: str, text: str) -> None:
        """Remember a robots.txt for the other tasks."""
        self._rules[origin] = text
        if len(self._rules) > _MOST_RULES:
            self._rules.popitem(last=False)


class Manners:
    """`Hosts` of this process, or those that `cluster.shared` gives to all tasks, as coroutines."""

    def __init__(self, hosts: Any) -> None:
        self._hosts, self._remote = hosts, hasattr(hosts.take, "remote")

    async def enter(self, host: str, delay: float) -> None:
        """Wait for a slot of the host; `leave` must follow."""
        while wait := await self._call("take", host, delay):
            await asyncio.sleep(min(wait, _LONGEST_SLEEP))

    async def leave(self, host: str) -> None:
        """Give the slot back."""
        await self._call("release", host)

    async def pause(self, host: str, seconds: float) -> None:
        """As `Hosts.pause`."""
        await self._call("pause", host, seconds)

    async def rules(self, origin: str) -> str | None:
        """As `Hosts.rules`."""
        return await self._call("rules", origin)

    async def keep_rules(self, origin: str, text: str) -> None:
        """As `Hosts.keep_rules`."""
        await self._call("keep_rules", origin, text)

    async def _call(self, name: str, *arguments: Any) -> Any:
        method = getattr(self._hosts, name)
        return await method.remote(*arguments) if self._remote else method(*arguments)
