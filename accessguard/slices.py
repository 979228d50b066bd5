"""Rows worked on for a moment at a time: how long one takes depends on what is in it, and on what the processor has at hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Final, TypeVar

Item = TypeVar("Item")

STRETCH_S: Final = 0.0002
"""How long is worked at a stretch: a held check takes a twentieth of that."""


async def in_slices(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Each of them; whoever else is served by this worker has a turn before, after, and after every `STRETCH_S`."""
    ends = 0.0
    for each in items:
        if time.perf_counter() >= ends:
            await asyncio.sleep(0)
            ends = time.perf_counter() + STRETCH_S
        yield each
    await asyncio.sleep(0)


def drained(items: list[Item]) -> Iterator[Item]:
    """Each of them, none of which is kept: to let go of a hundred at once takes as long as to write some of them."""
    items.reverse()
    while items:
        yield items.pop()
