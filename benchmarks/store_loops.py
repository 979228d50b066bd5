"""What one command to a store costs through the usual drivers: `python -m benchmarks.store_loops redis_get URL 1 2`.

Arguments: which command, the store's URL, how many at once, for how many seconds.
Prints one JSON object: operations, seconds, and this process's own time on the
processor in microseconds.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import msgspec
import uvloop
from redis.asyncio import Redis

KEYS = 10_000
CREATE = """
    CREATE TABLE IF NOT EXISTS bench_reference (id bigint PRIMARY KEY, value text NOT NULL, at timestamptz NOT NULL DEFAULT now())
"""
FILL = """
    INSERT INTO bench_reference (id, value) SELECT n, repeat('x', 100) FROM generate_series(1, 10000) AS n ON CONFLICT DO NOTHING
"""
FETCH = "SELECT id, value, at FROM bench_reference WHERE id = $1"
INSERT = "INSERT INTO bench_reference (id, value) VALUES ($1, $2)"

Operation = Callable[[int], Awaitable[object]]


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Operations done in `seconds`, and what they took of the processor in this process."""

    operations: int
    seconds: float
    cpu_us: float

    @property
    def per_second(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds

    @property
    def cpu_us_each(self) -> float:
        """Processor time of the client per operation, in microseconds."""
        return self.cpu_us / self.operations


async def redis_get(stack: AsyncExitStack, url: str, at_once: int) -> Operation:
    """`await redis.get(key)` on redis-py with hiredis, a connection for each one at once."""
    client = await stack.enter_async_context(Redis.from_url(url, max_connections=at_once))
    await client.mset({f"bench:{key}": "x" * 100 for key in range(KEYS)})
    return lambda turn: client.get(f"bench:{turn % KEYS}")


async def pg_fetch(stack: AsyncExitStack, url: str, at_once: int) -> Operation:
    """Fetch one row by its primary key from a pool of `at_once` connections."""
    pool = await _pool(stack, url, at_once)
    return lambda turn: pool.fetchrow(FETCH, turn % KEYS + 1)


async def pg_insert(stack: AsyncExitStack, url: str, at_once: int) -> Operation:
    """Insert one row of a hundred bytes, committed by itself."""
    pool = await _pool(stack, url, at_once)
    numbers = itertools.count(time.time_ns())
    return lambda _turn: pool.execute(INSERT, next(numbers), "x" * 100)


async def _pool(stack: AsyncExitStack, url: str, size: int) -> asyncpg.Pool:
    pool = await stack.enter_async_context(asyncpg.create_pool(url, min_size=size, max_size=size))
    await pool.execute(CREATE)
    await pool.execute(FILL)
    return pool


async def measure(operation: Operation, *, at_once: int, seconds: float) -> Tally:
    """Repeat `operation` with `at_once` under way at any time."""
    turn = 0
    deadline = time.monotonic() + seconds

    async def repeat() -> None:
        nonlocal turn
        while time.monotonic() < deadline:
            turn += 1
            await operation(turn)

    began, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(repeat() for _ in range(at_once)))
    return Tally(operations=turn, seconds=time.monotonic() - began, cpu_us=(time.process_time() - cpu) * 1e6)


OPERATIONS = {"redis_get": redis_get, "pg_fetch": pg_fetch, "pg_insert": pg_insert}


async def run(name: str, url: str, at_once: int, seconds: float) -> Tally:
    """Warm up for a fifth of the time, then measure."""
    async with AsyncExitStack() as stack:
        operation = await OPERATIONS[name](stack, url, at_once)
        await measure(operation, at_once=at_once, seconds=seconds / 5)
        return await measure(operation, at_once=at_once, seconds=seconds)


def main() -> None:
    """Read the arguments, print the tally."""
    name, url, at_once, seconds = sys.argv[1:]
    tally = uvloop.run(run(name, url, int(at_once), float(seconds)))
    sys.stdout.write(msgspec.json.encode(tally).decode())


if __name__ == "__main__":
    main()
