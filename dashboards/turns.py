"""Costly questions are answered one at a time per person, and few at a time in all; others wait in a queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import HTTPException

TOGETHER = 2  # questions answered at the same time
WAITING = 8  # questions of one person in the queue


@dataclass
class _Line:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


@dataclass
class Turns:
    """The queues of one server. Waiting costs no thread, so that other pages stay quick."""

    together: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(TOGETHER))
    lines: dict[str, _Line] = field(default_factory=dict)

    @asynccontextmanager
    async def turn(self, person: str) -> AsyncIterator[None]:
        """Wait for the person's turn, then hold it. Errors: 429 if too many of the person's questions wait."""
        line = self.lines.setdefault(person, _Line())
        if line.length > WAITING:
            raise HTTPException(429, f"{WAITING} of your questions are waiting: let them finish.")
        line.length += 1
        try:
            async with line.lock, self.together:
                yield
        finally:
            line.length -= 1
            if not line.length:
                self.lines.pop(person, None)
