"""Stores that are there and cannot: they hang, are full, refuse to write, have no connection left, or are both out."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import pytest

from accessguard.errors import GuardError
from accessguard.guard import changes
from accessguard.metrics import POOL_REFUSED
from tests.journeys.outage import Outage, back, known, out, refuse_attempts, until
from tests.journeys.outage import tenant as tenant  # noqa: PLC0414 - a fixture
from tests.journeys.outage import there as there  # noqa: PLC0414 - a fixture
from tests.service import items

pytestmark = pytest.mark.chaos


async def test_a_store_that_hangs_is_left_alone_after_a_few_calls(there, tenant):
    """PostgreSQL stands still, with every connection open: checks and logins are answered, and it is not asked again and again."""
    breaker = there.worker.context.ready._db.breaker
    await known(there, tenant)
    await there.freeze_postgres()
    try:
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(tenant.check(f"s{each}") for each in range(30)))
            login = await tenant.login("ana")
            await until(lambda: breaker.open)
            probes = breaker.probes
            more = await asyncio.gather(*(tenant.check(f"t{each}") for each in range(300)))
            page = await tenant.see("/v1/members")
    finally:
        await there.thaw_postgres()
    await there.drained()

    assert {each.status for each in (*answers, *more, login)} == {200}
    assert all(each["degraded"] for each in (*answers, *more))
    assert breaker.probes - probes < 50
    assert (page.status, "Retry-After" in page.headers) == (503, True)
    assert len(list(items(await tenant.see("/v1/members/ana/logins")))) == 1


async def test_with_both_stores_out_a_login_is_told_to_come_back(there, tenant):
    """503 with Retry-After; a session in memory goes on."""
    login = await tenant.login("ana")
    await tenant.check(login)
    await known(there, tenant)
    await there.freeze_valkey()
    await out(there, tenant)

    refused = await tenant.login("ben")
    going = await tenant.check(login)
    await there.thaw_valkey()
    await back(there)

    assert (refused.status, "Retry-After" in refused.headers) == (503, True)
    assert going["decision"] == "allow"


async def test_with_both_stores_out_what_is_old_is_left_to_the_tenant(there, tenant, monkeypatch):
    """A session in memory goes on while the worker may have heard of every block; then the tenant's choice decides. What is known to be blocked stays out."""
    monkeypatch.setattr(changes, "AFTER_LOOK_S", 0.0)
    await tenant.call("PUT", "/v1/settings", {"failure_mode": "closed"}, role="administrator")
    login, blocked = await tenant.login("ana"), await tenant.login("ben")
    await tenant.device("ben", blocked["device"]["id"], access="blocked")
    for each in (login, blocked):
        await tenant.check(each)
    await known(there, tenant)
    bars, memory = there.worker.context.changes.bars, there.worker.context.checks.memory
    await there.freeze_valkey()
    await out(there, tenant)
    during = await tenant.check(login) if memory.trusted or bars.current else None
    await until(lambda: not memory.trusted and not bars.current)
    afterwards = [await tenant.check(each) for each in (login, blocked)]
    await there.thaw_valkey()
    await back(there)

    assert during is None or during["decision"] == "allow"
    assert [each["reason"]["code"] for each in afterwards] == ["undecided", "device_blocked"]
    assert (await tenant.check(login))["decision"] == "allow"


@pytest.mark.parametrize("state", ["53100", "53200", "58030"], ids=["disk full", "out of memory", "i/o error"])
async def test_a_postgres_that_has_no_room_is_read_and_logins_wait(there, tenant, state):
    """Nothing is lost and nothing crashes; operators read, and are told to come back when they write."""
    login = await tenant.login("ana")
    await refuse_attempts(there, "%", state)
    try:
        page = await tenant.see("/v1/members")
        check = await tenant.check(login)
        waiting = await tenant.login("ben")
        ready = await tenant.call("GET", "/readyz")
    finally:
        await refuse_attempts(there, "", state)
    await there.drained()

    assert (page.status, check["decision"], ready.status) == (200, "allow", 200)
    assert (waiting.status, waiting["degraded"]) == (200, True)
    assert there.worker.context.ready._db.breaker.open is False
    assert len(list(items(await tenant.see("/v1/members/ben/logins")))) == 1


async def test_a_read_only_postgres_is_read_and_not_left_alone(there, tenant):
    """Operators read, and are told to come back when they write; logins wait."""
    login = await tenant.login("ana")
    await _tell_postgres(there, "ALTER SYSTEM SET default_transaction_read_only = on")
    try:
        page = await tenant.see("/v1/members")
        note = await tenant.call("PATCH", "/v1/members/ana", {"note": "x"}, role="supervisor")
        check = await tenant.check(login)
        waiting = await tenant.login("ben")
    finally:
        await _tell_postgres(there, "ALTER SYSTEM RESET default_transaction_read_only")
    await there.drained()

    assert (page.status, check["decision"]) == (200, "allow")
    assert (note.status, "Retry-After" in note.headers) == (503, True)
    assert (waiting.status, waiting["degraded"]) == (200, True)
    assert there.worker.context.ready._db.breaker.open is False
    assert len(list(items(await tenant.see("/v1/members/ben/logins")))) == 1


async def test_an_exhausted_pool_lets_checks_go_on_and_logins_wait(there, tenant, monkeypatch):
    """Every connection is in use: a check is answered in its deadline, a login is kept, an operator is told to come back; nothing is lost."""
    db, login = there.worker.context.ready._db, await tenant.login("ana")
    await tenant.check(login)
    waits = POOL_REFUSED.labels("wait")._value.get()
    monkeypatch.setattr("accessguard.database.POOL_WAIT_S", 1.0)
    async with contextlib.AsyncExitStack() as held:
        for _ in range(db._pool.get_max_size()):
            await held.enter_async_context(db._pool.acquire())
        check, unknown, waiting, page = await asyncio.gather(
            tenant.check(login), tenant.check("s"), tenant.login("ben"), tenant.see("/v1/members")
        )
        healthy = await tenant.call("GET", "/healthz")
    await there.drained()

    assert [each["decision"] for each in (check, unknown)] == ["allow", "allow"]
    assert unknown["degraded"]
    assert (waiting.status, waiting["degraded"], healthy.status) == (200, True, 200)
    assert (page.status, "Retry-After" in page.headers) == (503, True)
    assert POOL_REFUSED.labels("wait")._value.get() > waits
    assert len(list(items(await tenant.see("/v1/members/ben/logins")))) == 1


async def test_a_valkey_that_is_full_costs_no_beat_and_no_login(there, tenant):
    """What it does not take goes to PostgreSQL."""
    live = there.worker.context.ready._live
    login = await tenant.login("ana")
    await live.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        check = await tenant.check(login, activity="lesson_open")
        other = await tenant.login("ben")
        await there.worker.context.activity.flush()
    finally:
        await live.ask("CONFIG", "SET", "maxmemory", "0")

    card = await tenant.see("/v1/members/ana")
    assert (check["decision"], other.status, other["degraded"]) == ("allow", 200, False)
    assert card["last_activity"]["session_id"] == login["session"]["id"]


async def test_a_valkey_that_hangs_is_left_alone_and_missed_by_nobody(there, tenant):
    """Checks with their beats and logins are decided on PostgreSQL, after a few calls without even asking."""
    live = there.worker.context.ready._live
    logins = [await tenant.login(f"m{each}") for each in range(10)]
    await there.freeze_valkey()
    try:
        async with asyncio.timeout(60):
            checks = await asyncio.gather(*(tenant.check(each, activity="lesson_open") for each in logins))
            while not live.breaker.open:
                with contextlib.suppress(GuardError):
                    await live.ping()
            login = await tenant.login("ben")
            await there.worker.context.activity.flush()
    finally:
        await there.thaw_valkey()
    await until(lambda: not live.breaker.open)

    assert {each["decision"] for each in checks} == {"allow"}
    assert (login.status, login["degraded"]) == (200, False)
    for each in range(10):
        assert (await tenant.see(f"/v1/members/m{each}"))["last_activity"] is not None


async def _tell_postgres(there: Outage, statement: str) -> None:
    """Change a setting for every session that begins, and for those that are there."""
    connection = await asyncpg.connect(there.stores.database_url)
    try:
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(statement)
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()
    wanted = "on" if " = on" in statement else "off"
    db = there.worker.context.ready._db
    async with asyncio.timeout(30):
        while await db.value("SHOW default_transaction_read_only") != wanted:
            await asyncio.sleep(0.01)
