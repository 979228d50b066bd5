"""How many rows each table has, at one moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from accessguard.migrations.run import driver_url

TABLES: Final = text("""
    SELECT relname, quote_ident(relname) AS quoted FROM pg_class
     WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname
""")
EXPORT: Final = text("SELECT pg_export_snapshot(), current_setting('server_version'), now()")


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """Rows by table, as others see them who take up the same snapshot while it is held."""

    snapshot: str
    postgres: str
    rows: Mapping[str, int]


@asynccontextmanager
async def census(database_url: str) -> AsyncIterator[Census]:
    """Count, and hold the moment until the block ends."""
    engine = create_async_engine(driver_url(database_url), poolclass=NullPool, isolation_level="REPEATABLE READ")
    try:
        async with engine.connect() as connection:
            snapshot, postgres, _ = (await connection.execute(EXPORT)).one()
            yield Census(snapshot=snapshot, postgres=postgres, rows=await _count(connection))
    finally:
        await engine.dispose()


async def analyse(database_url: str) -> None:
    """Let the planner know what is there, which a dump does not tell it."""
    engine = create_async_engine(driver_url(database_url), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            await connection.execute(text("ANALYZE"))
    finally:
        await engine.dispose()


async def _count(connection: AsyncConnection) -> Mapping[str, int]:
    tables = (await connection.execute(TABLES)).all()
    return {
        each.relname: await connection.scalar(text(f"SELECT count(*) FROM {each.quoted}"))  # noqa: S608 - quoted by PostgreSQL
        for each in tables
    }
