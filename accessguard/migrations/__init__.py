"""The schema: forward only, under one lock, safe to run twice and beside the release before."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from accessguard.migrations.indexes import build

HERE = Path(__file__).parent
LOCK_NUMBER = 0x4147_0001  # "AG" 1; any constant works, as long as every release takes the same


async def migrate(database_url: str) -> str:
    """Bring the schema at `database_url` to this release's; return its revision.

    Runs in one transaction under an advisory lock, waiting at most 10 s for any
    table lock, so that it cannot hold up a service of the release before; then
    builds the indexes of big tables beside it.
    Raises what SQLAlchemy raises when the database is out of reach.
    """
    engine = _engine(database_url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)
        async with engine.connect() as connection:
            await build(await connection.execution_options(isolation_level="AUTOCOMMIT"))
    finally:
        await engine.dispose()
    return head()


async def revision(database_url: str) -> str | None:
    """The revision that the database is at; None for an empty database."""
    engine = _engine(database_url)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(lambda c: MigrationContext.configure(c).get_current_revision())
    finally:
        await engine.dispose()


def head() -> str:
    """The revision that this release needs."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    if newest is None:
        raise LookupError("this release ships no migrations")
    return newest


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection) -> None:
    connection.execute(text("SET LOCAL lock_timeout = '10s'"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK_NUMBER})
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _engine(database_url: str) -> AsyncEngine:
    """Connections without a pool; the look at the revision works through PgBouncer, where names of statements must be nobody else's."""
    return create_async_engine(
        _driver_url(database_url),
        poolclass=NullPool,
        connect_args={"statement_cache_size": 0, "prepared_statement_name_func": lambda: f"__ag_{uuid4().hex}__"},
    )


def _driver_url(database_url: str) -> str:
    _, separator, rest = database_url.partition("://")
    return f"postgresql+asyncpg{separator}{rest}"
