"""PostgreSQL, the only truth: one pool, one way to call it, one way it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec

from accessguard.errors import ErrorCode, GuardError

Row: TypeAlias = asyncpg.Record

# What means "the store did not answer", as opposed to "the statement is wrong".
OUT_OF_REACH = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.TooManyConnectionsError,
    asyncpg.exceptions.QueryCanceledError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.exceptions.DiskFullError,
    asyncpg.exceptions.DeadlockDetectedError,
    asyncpg.exceptions.SerializationError,
)

# A NOT NULL that is violated is a statement's way to refuse a row that is somebody else's by now.
# What means "the caller's value is none that can be kept or compared": NUL in a text, a year past the calendar.
REFUSED = (
    asyncpg.DataError,
    asyncpg.UniqueViolationError,
    asyncpg.NotNullViolationError,
    asyncpg.CheckViolationError,
    asyncpg.ForeignKeyViolationError,
    asyncpg.exceptions.CardinalityViolationError,
)


# Statements are planned once for each connection and kept, often while tables are still empty; what reads them whole
# is then the cheapest way, and stays so for minutes after they have grown. Every query names its tenant, so there is
# always an index to go by. Nothing here runs long enough to be worth compiling.
SETTINGS: Final = {"application_name": "accessguard", "timezone": "UTC", "enable_seqscan": "off", "jit": "off"}


class Database:
    """A bounded pool of connections; every failure to reach the server is UNAVAILABLE.

    A value that PostgreSQL does not take is INVALID, a key that is taken is CONFLICT.
    `timeout_s` bounds each call, the wait for a connection included.
    """

    def __init__(self, pool: asyncpg.Pool, *, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    @classmethod
    async def connect(cls, url: str, *, size: int, timeout_s: float = 5.0) -> Database:
        """Open a pool of at most `size` connections to `url`.

        Raises GuardError(UNAVAILABLE) when the server is out of reach.
        """
        try:
            pool = await asyncpg.create_pool(
                url,
                min_size=min(2, size),
                max_size=size,
                timeout=timeout_s,
                # no command_timeout: `asyncio.timeout` around each call bounds the wait for a connection as well
                max_inactive_connection_lifetime=60.0,
                init=_prepare,
                reset=_nothing,
                server_settings=SETTINGS,
            )
        except (*OUT_OF_REACH, asyncpg.PostgresError) as error:
            raise _unavailable() from error
        return cls(pool, timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the pool; a connection that does not come back in `timeout_s` is cut."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @property
    def size(self) -> int:
        """Connections open now."""
        return int(self._pool.get_size())

    @property
    def idle(self) -> int:
        """Open connections that nobody uses now."""
        return int(self._pool.get_idle_size())

    async def fetch(self, statement: str, *values: object, timeout_s: float | None = None) -> list[Row]:
        """Every row of one statement. Raises GuardError(UNAVAILABLE)."""
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s), self._pool.acquire() as connection:
                return list(await connection.fetch(statement, *values))
        except OUT_OF_REACH as error:
            raise _unavailable() from error
        except REFUSED as error:
            raise _refused(error) from error

    async def row(self, statement: str, *values: object, timeout_s: float | None = None) -> Row | None:
        """The first row of one statement, or None. Raises GuardError(UNAVAILABLE)."""
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s), self._pool.acquire() as connection:
                return await connection.fetchrow(statement, *values)
        except OUT_OF_REACH as error:
            raise _unavailable() from error
        except REFUSED as error:
            raise _refused(error) from error

    async def value(self, statement: str, *values: object, timeout_s: float | None = None) -> Any:
        """The first column of the first row, or None. Raises GuardError(UNAVAILABLE)."""
        found = await self.row(statement, *values, timeout_s=timeout_s)
        return None if found is None else found[0]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Database]:
        """A database whose calls all run in one transaction, committed at the end.

        Raises GuardError(UNAVAILABLE) when the commit did not reach the server.
        """
        try:
            async with asyncio.timeout(self._timeout_s), self._pool.acquire() as connection, connection.transaction():
                yield _Transaction(connection, timeout_s=self._timeout_s)
        except OUT_OF_REACH as error:
            raise _unavailable() from error
        except REFUSED as error:
            raise _refused(error) from error


class _Transaction(Database):
    """The same calls on one connection inside a transaction that `transaction` began."""

    def __init__(self, connection: Any, *, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    async def fetch(self, statement: str, *values: object, timeout_s: float | None = None) -> list[Row]:
        return list(await self._connection.fetch(statement, *values))

    async def row(self, statement: str, *values: object, timeout_s: float | None = None) -> Row | None:
        found: Row | None = await self._connection.fetchrow(statement, *values)
        return found


def both_ways(statement: str) -> Mapping[bool, str]:
    """A keyset listing by direction: True is descending.

    `statement` is a constant that writes `<after>` and `<order>` where the
    direction matters.
    """
    return {
        True: statement.replace("<after>", "<").replace("<order>", "DESC"),
        False: statement.replace("<after>", ">").replace("<order>", "ASC"),
    }


async def _nothing(_: Any) -> None:
    """No call changes its connection, so nothing is set back: asyncpg's own way is a round trip after each."""


async def _prepare(connection: Any) -> None:
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(kind, encoder=_encode, decoder=_raw, schema="pg_catalog")


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def _unavailable() -> GuardError:
    return GuardError(ErrorCode.UNAVAILABLE, "The database is out of reach; try again shortly.")


def _refused(error: asyncpg.PostgresError) -> GuardError:
    if isinstance(
        error, (asyncpg.UniqueViolationError, asyncpg.NotNullViolationError, asyncpg.ForeignKeyViolationError)
    ):
        return GuardError(ErrorCode.CONFLICT, "This has just been stored by another call.")
    return GuardError(ErrorCode.INVALID, "A value is none that can be stored or compared.")
