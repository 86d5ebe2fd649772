"""Manners towards hosts."""

from __future__ import annotations

import asyncio

from curation.sources.urls.hosts import Hosts, Manners


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_slots_delays_and_pauses() -> None:
    clock = Clock()
    hosts = Hosts(2, 10.0, clock)
    assert hosts.take("a", 1.0) == 0.0 and hosts.take("b", 1.0) == 0.0  # hosts do not wait for each other
    assert hosts.take("a", 1.0) == 1.0  # too soon
    clock.now += 1.0
    assert hosts.take("a", 0.0) == 0.0
    assert 0 < hosts.take("a", 0.0) < 1  # both slots are taken
    hosts.release("a")
    assert hosts.take("a", 0.0) == 0.0
    hosts.release("a")
    hosts.pause("a", 5.0)
    assert hosts.take("a", 0.0) == 5.0
    clock.now += 5.0
    assert hosts.take("a", 0.0) == 0.0


def test_the_slot_of_a_task_that_died_ends_by_itself() -> None:
    clock = Clock()
    hosts = Hosts(1, 10.0, clock)
    assert hosts.take("a", 0.0) == 0.0 and hosts.take("a", 0.0) > 0
    clock.now += 10.5
    assert hosts.take("a", 0.0) == 0.0
    hosts.release("a")
    hosts.release("a")  # the dead one's, late
    hosts.release("never seen")
    assert hosts.take("a", 0.0) == 0.0 and hosts.take("a", 0.0) > 0


def test_rules_are_remembered() -> None:
    hosts = Hosts(1, 10.0)
    assert hosts.rules("http://h/robots.txt") is None
    hosts.keep_rules("http://h/robots.txt", "")
    assert hosts.rules("http://h/robots.txt") == ""


def test_callers_wait_for_their_turn() -> None:
    async def run() -> int:
        manners, at_once, most = Manners(Hosts(2, 10.0)), 0, 0

        async def work() -> None:
            nonlocal at_once, most
            await manners.enter("h", 0.0)
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.01)
            at_once -= 1
            await manners.leave("h")

        await asyncio.gather(*(work() for _ in range(8)))
        return most

    assert asyncio.run(run()) == 2
