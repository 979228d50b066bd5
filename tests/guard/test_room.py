"""A member's devices are bounded, and nobody is kept out by that, nor let in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from accessguard.database import Database
from accessguard.guard import room
from accessguard.guard.facts import from_ms
from accessguard.guard.room import Room
from tests.migrations.databases import connected
from tests.service import CHROME, Answer, Tenant

MOST = 500
THOUSANDS = 2_000
AT_ONCE = 8

# As many logins that were refused would leave them: no place, and seen later than all that is there.
FLOOD = """
    INSERT INTO device (tenant, id, member_id, browser_id, secret_hash, rotated_at, label, browser, os, device_class,
                        first_seen_at, last_seen_at)
    SELECT $1, gen_random_uuid(), $2, gen_random_uuid(), '\\x00', now(), 'Chrome', 'Chrome', 'Windows', 'computer', now(),
           now() + make_interval(secs => n * 0.001)
      FROM generate_series(1, $3) n
"""
LONG_AGO = (
    "UPDATE device SET last_seen_at = last_seen_at - interval '300 days' WHERE tenant = $1 AND forgotten_at IS NULL"
)
COUNT = """
    SELECT count(*) FILTER (WHERE forgotten_at IS NULL) AS known, count(*) FILTER (WHERE forgotten_at IS NOT NULL) AS forgotten
      FROM device WHERE tenant = $1 AND member_id = $2
"""
MEMBER = "ana / أنا 💃 %2F"


@pytest.fixture
async def db(tenant: Tenant, database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of this test."""
    async with connected(database_url) as connection:
        yield connection


async def elsewhere(tenant: Tenant, number: int, **more: Any) -> Answer:
    """A login from a browser and an address of its own."""
    return await tenant.login(MEMBER, user_agent=CHROME.format(100 + number), ip=f"198.51.100.{number}", **more)


async def counted(db: asyncpg.Connection, tenant: Tenant, member: str = MEMBER) -> tuple[int, int]:
    """How many devices are known, and how many forgotten."""
    row = await db.fetchrow(COUNT, tenant.name, member)
    assert row is not None
    return row["known"], row["forgotten"]


async def test_thousands_of_devices_make_room_and_what_an_operator_decided_stays(
    tenant: Tenant, db: asyncpg.Connection
):
    """Logins at once go on and leave no more than the bound; those that never had a place go before the student's own."""
    blocked, allowed, named, in_use, own = [await elsewhere(tenant, number) for number in range(5)]
    said = ((blocked, {"access": "blocked"}), (allowed, {"access": "allowed"}), (named, {"name": "Küche"}))
    words = [await tenant.device(quote(MEMBER, safe=""), each["device"]["id"], **word) for each, word in said]
    for each in (allowed, named, own):
        await tenant.call("POST", f"/v1/sessions/{each['session']['id']}/end", {})
    await db.execute(LONG_AGO, tenant.name)
    await db.execute(FLOOD, tenant.name, MEMBER, THOUSANDS)

    logins = await asyncio.gather(*(elsewhere(tenant, 10 + number) for number in range(AT_ONCE)))
    again = [await elsewhere(tenant, n, device_token=one["device"]["token"]) for n, one in enumerate((blocked, own))]

    assert [each.status for each in words] == [200] * 3
    assert [each["decision"] for each in logins] == ["allow"] * AT_ONCE
    assert (await tenant.check(in_use))["decision"] == "allow"
    assert [(each["decision"], each["device"]["new"]) for each in again] == [("deny", False), ("allow", False)]
    assert await counted(db, tenant) == (MOST, MOST)
    kept = {
        row["id"]
        for row in await db.fetch("SELECT id::text FROM device WHERE tenant = $1 AND forgotten_at IS NULL", tenant.name)
    }
    assert {each["device"]["id"] for each in (blocked, allowed, named, in_use, own, *logins)} <= kept


async def test_upkeep_makes_room_where_nobody_logs_in_any_more(
    tenant: Tenant, db: asyncpg.Connection, database_url: str, monkeypatch
):
    """Of every member that has too many, some at a time; of one that has not, nothing."""
    other, pool = tenant.service.tenant(), await Database.connect(database_url, size=1)
    monkeypatch.setattr(room, "MEMBERS", 100)
    for each, devices in ((tenant, 30), (other, 9)):
        for member in ("ana", "bo"):
            await each.login(member)
            await db.execute(FLOOD, each.name, member, devices)
    await tenant.device("ana", (await tenant.login("ana"))["device"]["id"], access="blocked")
    upkeep = Room(db=pool, most=10, now_ms=tenant.service.clock)

    while await upkeep.tidy(pool, from_ms(tenant.service.clock())):
        pass

    await pool.close()
    assert {await counted(db, tenant, member) for member in ("ana", "bo")} == {(10, 10)}
    assert {await counted(db, other, member) for member in ("ana", "bo")} == {(10, 0)}
    found = (await tenant.call("GET", "/v1/members/ana/devices", role="supervisor", params={"limit": "50"}))["items"]
    assert sum(each["access"] == "blocked" for each in found) == 1
