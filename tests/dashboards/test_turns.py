"""Costly questions wait for their turn: one per person, two in all, and not without end."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import HTTPException

from dashboards.turns import TOGETHER, WAITING, Turns


async def _crowd(people: list[str]) -> tuple[int, dict[str, int]]:
    """Most questions that were answered at the same time: in all, and per person."""
    turns, now, most, most_each = Turns(), dict[str, int](), 0, dict[str, int]()

    async def question(person: str) -> None:
        nonlocal most
        async with turns.turn(person):
            now[person] = now.get(person, 0) + 1
            most = max(most, sum(now.values()))
            most_each[person] = max(most_each.get(person, 0), now[person])
            await asyncio.sleep(0.01)
            now[person] -= 1

    await asyncio.gather(*map(question, people))
    assert not turns.lines
    return most, most_each


def test_one_at_a_time_per_person_and_few_in_all():
    most, each = asyncio.run(_crowd(["ada", "bob", "carl", "dora"] * 5))
    assert most == TOGETHER and set(each.values()) == {1}


def test_a_person_cannot_fill_the_queue():
    with pytest.raises(HTTPException) as refused:
        asyncio.run(_crowd(["ada"] * (WAITING + 2)))
    assert refused.value.status_code == 429
