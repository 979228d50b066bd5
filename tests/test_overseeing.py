"""What the admin port makes of what several workers say."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from accessguard import supervisor as room
from accessguard.control import Report, Say
from accessguard.crew import Condition, Hand
from accessguard.exposition import Scrapes
from accessguard.overseeing import Overseer
from accessguard.ports import Ports
from accessguard.supervisor import Supervisor


def hand(slot: int, said: Report | None) -> Hand:
    """A worker that answers this when it is asked for its state."""

    async def state() -> Report | None:
        return said

    return cast("Hand", SimpleNamespace(slot=slot, condition=Condition.READY, state=state))


def says(pending: int, **parts: str) -> Report:
    """A worker's word."""
    return Report(say=Say.STATE, parts=parts, pending=pending)


@pytest.mark.parametrize(
    ("said", "status", "pending"),
    [
        pytest.param([says(3, postgres="up"), says(5, postgres="up")], "ok", 5, id="each has seen another moment"),
        pytest.param([says(0, postgres="down"), says(2, postgres="down")], "unavailable", 2, id="without a database"),
        pytest.param([None, says(1, postgres="up")], "ok", 1, id="one is silent"),
        pytest.param([None, None], "unavailable", 0, id="all are silent"),
    ],
)
async def test_the_supervisor_says_how_many_logins_wait(said: list[Report | None], status: str, pending: int):
    """The spool is one for all workers, so their numbers are not added up."""
    hands = [hand(slot, each) for slot, each in enumerate(said)]
    ports: Any = SimpleNamespace(slots=[None] * len(hands))

    health = await Overseer(Scrapes(), lambda: hands, cast("Ports", ports)).health()

    assert (health.status, health.pending) == (status, pending)
    assert set(health.parts) >= {"worker_1", "worker_2"}


async def test_a_system_without_room_for_a_process_ends_neither_a_keeper_nor_the_service(monkeypatch):
    """A dead worker is replaced as soon as there is room; a renewal without room fails, and nobody is stopped."""
    monkeypatch.setattr(room, "FIRST_REST_S", 0.001)
    ended, working = asyncio.Event(), asyncio.Event()
    tries = 0

    async def ready(_: float) -> bool:
        working.set()
        return True

    def hire(slot: int, *_: Any) -> Hand:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        there = SimpleNamespace(slot=slot, condition=Condition.READY, ended=asyncio.Event(), ready=ready)
        return cast("Hand", there)

    monkeypatch.setattr(room, "hire", hire)
    ports: Any = SimpleNamespace(slots=[None])
    supervisor = Supervisor(cast("Any", None), ports, {})
    dead: Any = SimpleNamespace(slot=0, condition=Condition.ENDED, ended=ended, ready_at=0.0, code=1, why="")
    ended.set()

    await supervisor.renew()
    keeping = asyncio.create_task(supervisor._keep(dead))
    async with asyncio.timeout(10):
        await working.wait()
    keeping.cancel()

    assert tries == 4
