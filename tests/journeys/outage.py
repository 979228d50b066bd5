"""A worker on stores of its own, which a test may stop, freeze and bring back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import psutil
import pytest

from accessguard.embedded import Child, Embedded
from accessguard.errors import GuardError
from accessguard.sessions.live import Change
from tests.data import lay_out
from tests.service import Service, Tenant, running

SOON: Final = {"breaker.LONGEST_S": 0.2, "guard.changes.POLL_S": 0.5, "guard.changes.LEAVE_S": 0.2}
"""How soon the worker looks again at what was gone; seconds."""


@dataclass
class Outage:
    """The stores, and what can be done to them."""

    stores: Embedded
    worker: Service

    async def freeze_postgres(self) -> None:
        """Let it answer nothing, without closing a connection: the server, and each of its processes."""
        for process in _family(self.stores.postgres):
            os.kill(process.pid, signal.SIGSTOP)

    async def thaw_postgres(self) -> None:
        """Let it go on."""
        for process in _family(self.stores.postgres):
            os.kill(process.pid, signal.SIGCONT)

    async def kill_postgres(self) -> None:
        """End it as a crash would."""
        assert self.stores.postgres is not None
        family = _family(self.stores.postgres)
        await self.stores.postgres.kill()
        await asyncio.to_thread(psutil.wait_procs, family, timeout=10)

    async def start_postgres(self) -> None:
        """Start it again."""
        await self.stores.start_postgres()

    async def freeze_valkey(self) -> None:
        """Let it answer nothing."""
        assert self.stores.valkey is not None
        os.kill(self.stores.valkey.pid, signal.SIGSTOP)

    async def thaw_valkey(self) -> None:
        """Let it go on."""
        assert self.stores.valkey is not None
        os.kill(self.stores.valkey.pid, signal.SIGCONT)

    async def kill_valkey(self) -> None:
        """End it as a crash would."""
        assert self.stores.valkey is not None
        await self.stores.valkey.kill()

    async def drained(self, *workers: Service) -> None:
        """Wait until PostgreSQL answers again and nothing waits any more."""
        for each in workers or (self.worker,):
            await until(lambda each=each: not each.context.ready._db.breaker.open)  # type: ignore[misc]
            await until(lambda each=each: not each.context.ready._live.breaker.open)  # type: ignore[misc]
            await _looked(each)
            await until(lambda each=each: each.context.spooling.pending == 0)  # type: ignore[misc]


async def _looked(worker: Service) -> None:
    """Have it look at what waits; a connection that was lost rests for a moment."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(GuardError):
                return await worker.context.spooling.look()
            await asyncio.sleep(0.05)


def _family(child: Child | None) -> list[psutil.Process]:
    assert child is not None
    server = psutil.Process(child.pid)
    return [server, *server.children(recursive=True)]


@contextlib.asynccontextmanager
async def outage(folder: Path, redis_url: str | None = None) -> AsyncIterator[Outage]:
    """Stores (or another Valkey) and a worker; whatever the test has done to them, nothing is left.

    What takes a second or two by itself is quicker: the worker's next look, and Valkey's disk, for which each login
    in an outage waits.
    """
    stores = await Embedded.start(await lay_out(folder / "data"))
    try:
        with pytest.MonkeyPatch.context() as patched:
            for name, seconds in SOON.items():
                patched.setattr(f"accessguard.{name}", seconds)
            async with running(stores.database_url, redis_url or stores.redis_url) as worker:
                if redis_url is None:
                    await worker.context.ready._live.ask("CONFIG", "SET", "appendfsync", "always")
                found = Outage(stores, worker)
                try:
                    yield found
                finally:
                    for child in (stores.postgres, stores.valkey):
                        if child is not None and child.running:
                            for process in _family(child):
                                os.kill(process.pid, signal.SIGCONT)
    finally:
        await stores.stop()


async def until(condition: Callable[[], bool], *, within_s: float = 30.0) -> None:
    """Wait until `condition()` is true; a hang is a failure."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
async def there(tmp_path_factory: Any) -> AsyncIterator[Outage]:
    """Stores and a worker for this module."""
    async with outage(tmp_path_factory.mktemp("outage")) as found:
        yield found


@pytest.fixture
async def tenant(there: Outage) -> AsyncIterator[Tenant]:
    """A tenant whose rules the worker knows; both stores are well again at the end."""
    found = there.worker.tenant()
    await found.login("zoe")
    yield found
    await there.thaw_valkey()
    if there.stores.postgres is not None and not there.stores.postgres.running:
        await there.start_postgres()
    await there.thaw_postgres()
    await there.drained()


async def known(there: Outage, tenant: Tenant) -> None:
    """The worker holds the tenant's rules, and has heard of every change of them."""
    book, live = there.worker.context.book, there.worker.context.ready._live
    await tenant.check("nobody")
    with contextlib.suppress(GuardError):  # where Valkey is out as well, there is nothing to hear
        book._held["settled"] = book._held[tenant.name]
        await live.publish(Change(tenant="settled", kind="policy_changed"))
        await until(lambda: "settled" not in book._held)
    await tenant.check("nobody")
    assert book.held(tenant.name) is not None


async def out(there: Outage, tenant: Tenant) -> None:
    """PostgreSQL is gone, and the worker has noticed."""
    await known(there, tenant)
    await there.kill_postgres()
    breaker = there.worker.context.ready._db.breaker
    while not breaker.open:
        await tenant.check(str(uuid4()))


async def back(there: Outage) -> None:
    """PostgreSQL is there again, and has what waited."""
    await there.start_postgres()
    await there.drained()


async def refuse_attempts(there: Outage, member: str, state: str) -> None:
    """Have PostgreSQL answer login attempts of such a member (LIKE; "": of nobody) with an error of this class."""
    connection = await asyncpg.connect(there.stores.database_url)
    try:
        await connection.execute(
            f"""
            CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF NEW.member_id LIKE '{member}' THEN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END IF;
                RETURN NEW;
            END $$;
            CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON login_attempt FOR EACH ROW EXECUTE FUNCTION refuse();
            """
        )
    finally:
        await connection.close()
