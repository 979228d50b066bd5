"""A generated population taken into the directory and counted for the reports, as upkeep would in its own time: by several processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import Final

import asyncpg

from accessguard.database import Database
from accessguard.members.filing import Filing
from accessguard.tallies.past import PastStore

PORTION: Final = 1_000
"""Members of one transaction: some 300 ms."""
COUNTED: Final = 5_000
"""Members whose past is counted by one statement."""
WORTH: Final = 20_000
"""From so many members on, indexes that every one of them changes are built at the end: sorted once."""
LONGEST_S: Final = 300.0
ALL: Final = "SELECT id FROM member WHERE tenant = $1 ORDER BY id"
PAST: Final = "INSERT INTO tally_past (tenant, before) VALUES ($1, $2) ON CONFLICT DO NOTHING"
LATE: Final = ("member_search_grams", "member_unfiled", "enrolment_unfiled", "member_by_standing")
BUILT: Final = """
    SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
      FROM pg_index WHERE indexrelid = ANY(SELECT to_regclass(n) FROM unnest($1::text[]) n)
"""
BUILDING: Final = ("SET maintenance_work_mem = '512MB'", "SET statement_timeout = 0")

Told = Callable[[int], None]


async def file_all(database_url: str, tenant: str, *, workers: int, told: Told = lambda done: None) -> None:
    """File every member of the tenant and count its past; `workers` processes (0: this one), `told` how many more are filed.

    What is filed already is looked at again, and stays as it is.
    """
    connection = await asyncpg.connect(database_url)
    try:
        ids = [row["id"] for row in await connection.fetch(ALL, tenant)]
        await connection.execute(PAST, tenant, datetime.now(UTC))
    finally:
        await connection.close()
    portions = [ids[at : at + PORTION] for at in range(0, len(ids), PORTION)]
    if workers:
        await _in_processes(database_url, tenant, portions, workers, told)
        return
    async with _late(database_url, worth=len(ids) >= WORTH):
        for each in portions:
            await _file(database_url, tenant, each)
    await _count(database_url)


async def _in_processes(
    database_url: str, tenant: str, portions: Sequence[Sequence[str]], workers: int, told: Told
) -> None:
    """The past is counted beside the filing, and beside the building of indexes after it."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        past = loop.run_in_executor(pool, count, database_url)
        async with _late(database_url, worth=len(portions) * PORTION >= WORTH):
            tasks = [loop.run_in_executor(pool, file, database_url, tenant, each) for each in portions]
            for number, each in enumerate(tasks):
                await each
                told(len(portions[number]))
        await past


def file(database_url: str, tenant: str, ids: Sequence[str]) -> None:
    """File these members, from a process of its own."""
    asyncio.run(_file(database_url, tenant, ids))


def count(database_url: str) -> None:
    """Count the past of every tenant that waits for it, from a process of its own."""
    asyncio.run(_count(database_url))


async def _file(database_url: str, tenant: str, ids: Sequence[str]) -> None:
    db = await Database.connect(database_url, size=1, timeout_s=LONGEST_S)
    try:
        await Filing(db).file([(tenant, each) for each in ids], now=datetime.now(UTC))
    finally:
        await db.close()


async def _count(database_url: str) -> None:
    db = await Database.connect(database_url, size=1, timeout_s=LONGEST_S)
    try:
        while await PastStore(db).count(most=COUNTED):
            pass
    finally:
        await db.close()


@asynccontextmanager
async def _late(database_url: str, *, worth: bool) -> AsyncIterator[None]:
    """Without the indexes that filing changes with every row, if it is worth it; with them again at the end."""
    connection = await asyncpg.connect(database_url)
    try:
        built = await connection.fetch(BUILT, list(LATE)) if worth else []
        for each in built:
            await connection.execute(f"DROP INDEX {each['name']}")
        try:
            yield
        finally:
            for statement in BUILDING:
                await connection.execute(statement)
            for each in built:
                await connection.execute(each["definition"], timeout=3_600)
    finally:
        await connection.close()
