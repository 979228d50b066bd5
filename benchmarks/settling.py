"""A generated population written into PostgreSQL: by COPY, chunk by chunk, from several processes at once."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from accessguard.guard.facts import from_ms
from accessguard.sessions.store import PARTITIONED
from benchmarks.filing import file_all
from benchmarks.inhabitants import COUNTRY
from benchmarks.ledger import COLUMNS, RULES, YEAR, Population, rule_id
from benchmarks.lives import chunk
from benchmarks.model import BenchError

MAKE: Final = """
    INSERT INTO tenant (id, name, settings, created_at)
    VALUES ($1, 'A generated population', $2, $3) ON CONFLICT (id) DO NOTHING RETURNING id
"""
RULE: Final = """
    WITH made AS (
        INSERT INTO rule (tenant, id, version, kind, body, created_at, updated_at) VALUES ($1, $2, 1, $3, $4, $5, $5)
    )
    INSERT INTO rule_version (tenant, rule_id, version, body, at, actor) VALUES ($1, $2, 1, $4, $5, 'system')
"""
MARK: Final = "INSERT INTO sharing_mark (tenant, at, member_id, since) VALUES ($1, $2, '', $2)"
# As the service makes them; one that cannot be made leaves its rows to the default partition.
PARTITION: Final = "SELECT ensure_partition($1, $2)"
# Members come before whatever refers to them, in the same transaction; checking it again would double the time. For
# superusers alone: whoever is none waits for the checks.
UNCHECKED: Final = "SET session_replication_role = replica"
UNHURRIED: Final = "SET synchronous_commit = off"
# The smallest part of the work with the journal is writing whole pages after each checkpoint, if there are few of them.
FEW_CHECKPOINTS: Final = (
    "ALTER SYSTEM SET max_wal_size = '8GB'",
    "ALTER SYSTEM SET checkpoint_timeout = '30min'",
    "SELECT pg_reload_conf()",
)
USUAL_CHECKPOINTS: Final = (
    "ALTER SYSTEM RESET max_wal_size",
    "ALTER SYSTEM RESET checkpoint_timeout",
    "SELECT pg_reload_conf()",
)
# Indexes of empty tables are built when the rows are there, sorted once instead of searched ten million times. Keys that
# other tables refer to stay.
BARE_FROM: Final = 20_000
EMPTY: Final = "SELECT NOT EXISTS (SELECT FROM member) AND NOT EXISTS (SELECT FROM login_attempt)"
BUILT: Final = """
    SELECT i.indexrelid::regclass::text AS name, c.conname, i.indrelid::regclass::text AS parent,
           coalesce(pg_get_constraintdef(c.oid), replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ')) AS definition
      FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid AND NOT t.relispartition
      LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.contype = 'p'
     WHERE t.relname = ANY($1) AND (c.oid IS NULL OR t.relname <> 'member') ORDER BY name
"""
SORTING: Final = ("SET maintenance_work_mem = '512MB'", "SET max_parallel_maintenance_workers = 2")
FILED: Final = ("member", "enrolment", "member_search", "product_access", "run_access")
"""What filing a population writes."""
RETENTION_DAYS: Final = 400
"""Longer than the histories, so that nothing of them is over its age on the day after."""

Progress = Callable[[int, int], None]


async def settle(
    database_url: str, wanted: Population, *, workers: int = 0, progress: Progress = lambda done, rows: None
) -> int:
    """Write the population into a migrated database, and take it into the directory; the number of its rows.

    `workers` processes make it, 0: this one. `progress` is told how many
    members and rows more there are. Raises BenchError when the tenant is there
    already.
    """
    async with _bare(database_url, wanted):
        await _prepare(database_url, wanted)
        rows = await _write(database_url, wanted, workers, progress)
    await _analyse(database_url, tuple(COLUMNS))
    await file_all(database_url, wanted.tenant, workers=workers)
    await _analyse(database_url, FILED)
    return rows


async def _write(database_url: str, wanted: Population, workers: int, progress: Progress) -> int:
    if workers:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, _in_processes, database_url, wanted, workers, progress)
    return sum([_told(await _load(database_url, wanted, each), wanted, progress) for each in range(wanted.chunks)])


def _in_processes(database_url: str, wanted: Population, workers: int, progress: Progress) -> int:
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(load, database_url, wanted, number) for number in range(wanted.chunks)]
        return sum(_told(each.result(), wanted, progress) for each in as_completed(tasks))


def _told(rows: int, wanted: Population, progress: Progress) -> int:
    progress(min(wanted.members, -(-wanted.members // wanted.chunks)), rows)
    return rows


def load(database_url: str, wanted: Population, number: int) -> int:
    """Write one chunk, from a process of its own; its rows."""
    return asyncio.run(_load(database_url, wanted, number))


async def _load(database_url: str, wanted: Population, number: int) -> int:
    made = chunk(wanted, number)
    connection = await asyncpg.connect(database_url)
    try:
        await _hasten(connection)
        async with connection.transaction():
            for table, text in made.items():
                await connection.copy_to_table(
                    table, source=io.BytesIO(text), columns=COLUMNS[table].split(), format="text"
                )
    finally:
        await connection.close()
    return sum(text.count(b"\n") for text in made.values())


async def _hasten(connection: asyncpg.Connection) -> None:
    await connection.execute(UNHURRIED)
    try:
        await connection.execute(UNCHECKED)
    except asyncpg.InsufficientPrivilegeError:
        return


async def _prepare(database_url: str, wanted: Population) -> None:
    """The tenant, its rules, and the partitions of the months that it looks back on."""
    until = from_ms(wanted.until_ms)
    connection = await asyncpg.connect(database_url)
    try:
        retention = dict.fromkeys(("logins_days", "activity_days", "violations_days"), RETENTION_DAYS)
        settings = msgspec.json.encode({"country": COUNTRY, "retention": retention}).decode()
        if await connection.fetchval(MAKE, wanted.tenant, settings, from_ms(wanted.until_ms - 3 * YEAR)) is None:
            raise BenchError(f"the tenant {wanted.tenant} is there already")
        for number, (kind, action, params) in enumerate(RULES):
            body = msgspec.json.encode(
                {"kind": kind, "name": kind, "mode": "enforce", "action": action, "params": params}
            )
            made = until - timedelta(days=400)
            await connection.execute(RULE, wanted.tenant, UUID(rule_id(wanted.seed, number)), kind, body.decode(), made)
        await connection.execute(MARK, wanted.tenant, until)
        for parent in PARTITIONED:
            for month in months(until):
                await _partition(connection, parent, month)
    finally:
        await connection.close()


@asynccontextmanager
async def _bare(database_url: str, wanted: Population) -> AsyncIterator[None]:
    """Without the indexes of big tables, where they are empty and will be big; with them again at the end."""
    connection = await asyncpg.connect(database_url)
    try:
        worth = wanted.members >= BARE_FROM and await connection.fetchval(EMPTY)
        built = await connection.fetch(BUILT, list(COLUMNS)) if worth else []
        for each in built:
            await connection.execute(
                f"ALTER TABLE {each['parent']} DROP CONSTRAINT {each['conname']}"
                if each["conname"]
                else f"DROP INDEX {each['name']}"
            )
        try:
            yield
        finally:
            for statement in SORTING:
                await connection.execute(statement)
            for each in built:
                add = f"ALTER TABLE {each['parent']} ADD CONSTRAINT {each['conname']} {each['definition']}"
                await connection.execute(add if each["conname"] else each["definition"], timeout=3_600)
    finally:
        await connection.close()


async def _partition(connection: asyncpg.Connection, parent: str, month: datetime) -> None:
    try:
        await connection.execute(PARTITION, parent, month.date())
    except (asyncpg.CheckViolationError, asyncpg.LockNotAvailableError):
        return


def months(until: datetime) -> Iterator[datetime]:
    """The first days of the months that a history up to `until` touches, and of the next one."""
    month = (until - timedelta(days=367)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while month <= until + timedelta(days=31):
        yield month
        month = (month + timedelta(days=32)).replace(day=1)


async def _analyse(database_url: str, tables: tuple[str, ...]) -> None:
    """What autovacuum would do in its own time: statistics, and which pages everybody sees."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(f"VACUUM (ANALYZE) {', '.join(tables)}", timeout=3_600)
    finally:
        await connection.close()


async def checkpoints(database_url: str, statements: tuple[str, ...]) -> None:
    """Have the server of an embedded folder make few checkpoints, or as many as usual again."""
    connection = await asyncpg.connect(database_url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def now_ms() -> int:
    """The present, to the minute."""
    return int(datetime.now(UTC).timestamp()) // 60 * 60_000
