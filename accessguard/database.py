"""PostgreSQL, the only truth: one pool, one way to call it, one way it fails."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec

from accessguard.breaker import Breaker, Store
from accessguard.errors import ErrorCode, GuardError
from accessguard.metrics import POOL_REFUSED, STORE_FAILURES, STORE_SECONDS
from accessguard.tracing import TRACING

Row: TypeAlias = asyncpg.Record

# What means "the store did not answer", as opposed to "the statement is wrong".
OUT_OF_REACH = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.PostgresSystemError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.exceptions.DeadlockDetectedError,
    asyncpg.exceptions.SerializationError,
)

# Of these, what means that nobody is there or that nobody listens; the others are answers, and say that it lives.
SILENT = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
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


TOLD: Final = {name: SETTINGS[name] for name in ("application_name", "timezone")}
"""Those of them that PgBouncer sets on whichever connection it gives ("application_name" and "TimeZone" are of the five that it tracks; it refuses others at the start)."""

STATEMENTS: Final = 100
"""Prepared statements that a connection keeps, as asyncpg does by itself."""

UNSETTLED: Final = """
    SELECT name FROM pg_settings WHERE (name, setting) IN (('enable_seqscan', 'on'), ('jit', 'on')) ORDER BY name
"""

POOL_WAIT_S: Final = 5.0
"""How long a call waits at most while all connections are in use: members who free places all at once wait for each other."""
MOST_WAITING: Final = 256
"""Calls that may wait for a connection; the next one is refused at once."""
PROBE: Final = "SELECT 1"
PROBE_S: Final = 1.0
GIVE_BACK_S: Final = 1.0
"""How long a statement that was given up may take to be cancelled before its connection is cut."""


class Database:
    """A bounded pool of connections; every failure to reach the server is UNAVAILABLE.

    A value that PostgreSQL does not take is INVALID, a key that is taken is CONFLICT.
    `timeout_s` bounds each call, the wait for a connection included. A server
    that does not answer is left alone until it does (`Breaker`).
    """

    def __init__(self, pool: asyncpg.Pool, *, timeout_s: float, store: Store = Store.POSTGRES) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._waiting = 0
        self._leaving: set[asyncio.Task[None]] = set()
        self.breaker = Breaker(store, self._probe)
        self._store = store.value
        self._timing, self._failures = STORE_SECONDS[store], STORE_FAILURES.labels(store)

    @classmethod
    async def connect(
        cls, url: str, *, size: int, timeout_s: float = 5.0, pooled: bool = False, store: Store = Store.POSTGRES
    ) -> Database:
        """Open a pool of at most `size` connections to `url`; to a replica, none before the first call.

        `pooled`: PgBouncer is in between, and gives each transaction any
        connection of its own: nothing may depend on which. Statements are then
        prepared without a name, and SETTINGS belong to the role (`unsettled`).
        Raises GuardError(UNAVAILABLE) when the server is out of reach.
        """
        try:
            pool = await asyncpg.create_pool(
                url,
                min_size=min(2, size) if store is Store.POSTGRES else 0,
                max_size=size,
                timeout=timeout_s,
                # no command_timeout: each call says how much is left of its own
                max_inactive_connection_lifetime=60.0,
                init=_prepare,
                reset=_nothing,
                server_settings=TOLD if pooled else SETTINGS,
                statement_cache_size=0 if pooled else STATEMENTS,
            )
        except (*OUT_OF_REACH, asyncpg.PostgresError) as error:
            raise _unavailable() from error
        return cls(pool, timeout_s=timeout_s, store=store)

    async def close(self) -> None:
        """Close the pool; a connection that does not come back in `timeout_s` is cut."""
        self.breaker.close()
        if self.breaker.open:
            self._pool.terminate()
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

    @property
    def waiting(self) -> int:
        """Calls that wait for a connection."""
        return self._waiting

    async def fetch(self, statement: str, *values: object, timeout_s: float | None = None) -> list[Row]:
        """Every row of one statement. Raises GuardError(UNAVAILABLE)."""
        async with self._lent(timeout_s or self._timeout_s) as (connection, left_s):
            return list(await connection.fetch(statement, *values, timeout=left_s))

    async def row(self, statement: str, *values: object, timeout_s: float | None = None) -> Row | None:
        """The first row of one statement, or None. Raises GuardError(UNAVAILABLE)."""
        async with self._lent(timeout_s or self._timeout_s) as (connection, left_s):
            found: Row | None = await connection.fetchrow(statement, *values, timeout=left_s)
            return found

    async def value(self, statement: str, *values: object, timeout_s: float | None = None) -> Any:
        """The first column of the first row, or None. Raises GuardError(UNAVAILABLE)."""
        found = await self.row(statement, *values, timeout_s=timeout_s)
        return None if found is None else found[0]

    async def unsettled(self) -> tuple[str, ...]:
        """Names of settings that are not as statements here want them. Raises GuardError(UNAVAILABLE)."""
        return tuple(row["name"] for row in await self.fetch(UNSETTLED))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Database]:
        """A database whose calls all run in one transaction, committed at the end.

        Raises GuardError(UNAVAILABLE) when the commit did not reach the server.
        """
        async with self._lent(self._timeout_s) as (connection, left_s):
            # Cut, not cancelled: a transaction whose caller has gone is undone whatever it waits for.
            timer = asyncio.get_running_loop().call_later(left_s, connection.terminate)
            try:
                async with connection.transaction():
                    yield _Transaction(connection, timeout_s=self._timeout_s)
            finally:
                timer.cancel()

    @asynccontextmanager
    async def _lent(self, timeout_s: float) -> AsyncIterator[tuple[Any, float]]:
        """A connection, and the seconds that are left for what it is wanted for."""
        if self.breaker.refused():
            raise _unavailable()
        clock = time.perf_counter  # the loop's own counts milliseconds
        began = clock()
        try:
            with TRACING.store(self._store):
                connection = await self._acquired(timeout_s)
                try:
                    yield connection, max(0.001, began + timeout_s - clock())
                except BaseException:
                    self._give_back(connection)
                    raise
                await self._pool.release(connection)
        except OUT_OF_REACH as error:
            self._failures.inc()
            self._heard(error)
            raise _unavailable() from error
        except REFUSED as error:
            self.breaker.succeeded()
            raise _refused(error) from error
        finally:
            self._timing.took(clock() - began)
        self.breaker.succeeded()

    async def _acquired(self, timeout_s: float) -> Any:
        """A connection of the pool; who would have to wait behind too many others, or too long, is told so."""
        if self._waiting >= MOST_WAITING:
            POOL_REFUSED.labels("queue").inc()
            raise _exhausted()
        self._waiting += 1
        try:
            async with asyncio.timeout(min(timeout_s, POOL_WAIT_S)):
                return await self._pool.acquire()
        except TimeoutError:
            if self._pool.get_size() < self._pool.get_max_size():
                raise  # not the others' fault: the server lets nobody in
            POOL_REFUSED.labels("wait").inc()
            raise _exhausted() from None
        finally:
            self._waiting -= 1

    def _give_back(self, connection: Any) -> None:
        """Let go of a connection whose call failed, without waiting: what it still does may have to be cancelled."""
        leaving = asyncio.get_running_loop().create_task(self._returned(connection))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _returned(self, connection: Any) -> None:
        with contextlib.suppress(*OUT_OF_REACH, asyncpg.PostgresError):
            await self._pool.release(connection, timeout=GIVE_BACK_S)

    def _heard(self, error: BaseException) -> None:
        if isinstance(error, SILENT):
            self.breaker.failed()
        else:
            self.breaker.succeeded()

    async def _probe(self) -> None:
        """Ask for a sign of life. Raises OSError."""
        try:
            async with asyncio.timeout(PROBE_S):
                connection = await self._pool.acquire()
            try:
                await connection.fetchval(PROBE, timeout=PROBE_S)
            finally:
                self._give_back(connection)
        except (*OUT_OF_REACH, asyncpg.PostgresError) as error:
            raise OSError("no sign of life") from error


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


def _exhausted() -> GuardError:
    return GuardError(ErrorCode.UNAVAILABLE, "Too much is under way; try again shortly.")


def _refused(error: asyncpg.PostgresError) -> GuardError:
    if isinstance(
        error, (asyncpg.UniqueViolationError, asyncpg.NotNullViolationError, asyncpg.ForeignKeyViolationError)
    ):
        return GuardError(ErrorCode.CONFLICT, "This has just been stored by another call.")
    return GuardError(ErrorCode.INVALID, "A value is none that can be stored or compared.")
