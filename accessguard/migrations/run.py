"""The way from one revision to the next. Loads Alembic and SQLAlchemy, 40 MB that a server which only looks has no use for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final
from uuid import uuid4

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from accessguard.errors import StartError
from accessguard.migrations.indexes import build
from accessguard.migrations.standing import head, revisions

HERE = Path(__file__).parent
LOCK_NUMBER = 0x4147_0001  # "AG" 1; any constant works, as long as every release takes the same

PAUSE_S: Final = 0.5
"""Between two tries: whoever waited behind the one that gave way has long been answered."""
# Whoever asks for a table's lock makes all who come later wait behind it, so it asks for half of the time of a check.
# What is allowed in a migration takes milliseconds once it has its locks; the second bound is for what nobody thought of.
BOUNDS: Final = ("SET LOCAL lock_timeout = '50ms'", "SET LOCAL statement_timeout = '10s'")
TRY_LOCK: Final = text("SELECT pg_try_advisory_xact_lock(:number)")
GAVE_WAY: Final = frozenset({"55P03", "40P01", "57014"})
"""SQLSTATEs of a statement that gave way: lock_not_available, deadlock_detected, query_canceled (PostgreSQL, appendix A)."""


class _Busy(Exception):  # noqa: N818 - nothing is wrong
    """Another `migrate` is at work."""


async def migrate(database_url: str, *, patience_s: float, to: str | None) -> str:
    """Bring the schema at `database_url` to this release's, or to the revision `to`; return its revision.

    Each revision is one transaction under an advisory lock. One that does not
    get a lock at once gives way to the service and is tried again, for
    `patience_s` in all; whatever ends it in the middle, the next run goes on.
    Then the indexes of big tables are built beside the service.
    Raises StartError when time is over or the schema is newer than this
    release, and what SQLAlchemy raises when the database is out of reach.
    """
    until = asyncio.get_running_loop().time() + patience_s
    engine = _engine(database_url)
    try:
        while not await _stepped(engine, to or head(), until):
            pass
        if to is None:
            async with engine.connect() as connection:
                await build(await connection.execution_options(isolation_level="AUTOCOMMIT"), until=until)
    finally:
        await engine.dispose()
    return to or head()


async def revision(database_url: str) -> str | None:
    """The revision that the database is at; None for an empty database."""
    engine = _engine(database_url)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(_current)
    finally:
        await engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


async def _stepped(engine: AsyncEngine, target: str, until: float) -> bool:
    """Go one revision further; whether there was none left. One that gave way rests first, until time is over."""
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(_step, target)
    except (_Busy, DBAPIError) as error:
        if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) not in GAVE_WAY:
            raise
        if asyncio.get_running_loop().time() > until:
            raise StartError(_late(error)) from error
    await asyncio.sleep(PAUSE_S)
    return False


def _step(connection: Connection, target: str) -> bool:
    for bound in BOUNDS:
        connection.execute(text(bound))
    if not connection.scalar(TRY_LOCK, {"number": LOCK_NUMBER}):
        raise _Busy
    known, current = revisions(), _current(connection)
    if current is not None and current not in known:
        raise StartError(f"The schema is at {current}, which this release does not know: upgrade AccessGuard.")
    done = 0 if current is None else known.index(current) + 1
    if done > known.index(target):
        return True
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, known[done])
    return False


def _late(error: Exception) -> str:
    what = "Another `accessguard migrate` has not finished"
    if not isinstance(error, _Busy):
        what = "A table that a migration changes was in use all the time (pg_stat_activity says by whom)"
    return f"{what}; what is done stays done: run `accessguard migrate` again, with a longer --wait."


def _engine(database_url: str) -> AsyncEngine:
    """Connections without a pool, to the address as asyncpg reads it (TLS included); the look at the revision works through PgBouncer, where names of statements must be nobody else's."""
    return create_async_engine(
        "postgresql+asyncpg://",
        poolclass=NullPool,
        connect_args={
            "dsn": database_url,
            "statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"__ag_{uuid4().hex}__",
        },
    )


def driver_url(database_url: str) -> str:
    """The address as SQLAlchemy takes it."""
    _, separator, rest = database_url.partition("://")
    return f"postgresql+asyncpg{separator}{rest}"
