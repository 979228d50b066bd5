"""Work on many rows leaves turns of the loop to others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from accessguard.slices import STRETCH_S, drained, in_slices


def slow(number: int) -> Iterator[int]:
    """Each takes as long as may be worked at a stretch."""
    for each in range(number):
        ends = time.perf_counter() + STRETCH_S
        while time.perf_counter() < ends:
            pass
        yield each


async def test_others_have_a_turn_after_every_stretch():
    """Before, after, and between; all items come, in their order."""
    turns, done = 0, asyncio.Event()

    async def other() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    found = [each async for each in in_slices(slow(5))]
    done.set()
    await running

    assert found == [0, 1, 2, 3, 4]
    assert turns >= 6


async def test_nothing_is_no_reason_to_fail():
    """No items, no more."""
    none: tuple[int, ...] = ()

    assert [each async for each in in_slices(none)] == []


async def test_what_is_drained_is_not_kept():
    """Each comes once, in its order, and has left the list by then."""
    items = [1, 2, 3]

    left = [(each, len(items)) async for each in in_slices(drained(items))]

    assert left == [(1, 2), (2, 1), (3, 0)]
