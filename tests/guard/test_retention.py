"""What is older than its tenant keeps goes: whole months where they are old for all, else rows; addresses are cut before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from accessguard.database import Database
from accessguard.guard.upkeep import Job, Upkeep
from accessguard.tallies.past import PastStore
from tests.service import Tenant, items

NOW = datetime.now(UTC)
FORGET = "DELETE FROM upkeep WHERE job = $1"

# One row in each ledger at a time, of the same member.
AT = """
    WITH t AS (SELECT $1::text AS tenant, $2::timestamptz AS at, $3::inet AS ip, gen_random_uuid() AS id)
    , tries AS (INSERT INTO login_attempt (tenant, id, at, member_id, outcome, method, device_token, decision, ip)
                SELECT tenant, id, at, 'ana', 'success', 'password', 'none', 'allow', ip FROM t)
    , acts AS (INSERT INTO activity (tenant, member_id, session_id, at, kind, ip) SELECT tenant, 'ana', id::text, at, 'lesson_open', ip FROM t)
    , seen AS (INSERT INTO member_network (tenant, member_id, session_id, ip, first_at, last_at, city)
               SELECT tenant, 'ana', id::text, ip, at, at, 'Rome' FROM t)
    , marks AS (INSERT INTO read_mark SELECT tenant, id, 'luca', 1, at FROM t)
    , cases AS (INSERT INTO violation_case SELECT tenant, 'ana', at::text, '', id, at, at FROM t)
    , sessions AS (INSERT INTO session (tenant, id, member_id, device_class, method, ip, started_at, expires_at)
                   SELECT tenant, id::text, 'ana', 'desktop', 'password', ip, at, at + interval '1 hour' FROM t)
    INSERT INTO violation (tenant, id, code, mode, effect, member_id, first_at, last_at, hits, ip)
    SELECT tenant, id, 'device_limit', 'enforce', 'denied', 'ana', at, at, 1, ip FROM t
"""
HELD = """
    SELECT (SELECT count(*) FROM login_attempt WHERE tenant = $1 AND at = $2)::int AS login_attempt,
           (SELECT count(*) FROM activity WHERE tenant = $1 AND at = $2)::int AS activity,
           (SELECT count(*) FROM violation WHERE tenant = $1 AND first_at = $2)::int AS violation,
           (SELECT count(*) FROM read_mark WHERE tenant = $1 AND read_at = $2)::int AS read_mark,
           (SELECT count(*) FROM violation_case WHERE tenant = $1 AND first_at = $2)::int AS violation_case,
           (SELECT count(*) FROM session WHERE tenant = $1 AND started_at = $2)::int AS session
"""
ADDRESSES = """
    SELECT 'login_attempt' AS name, array_agg(DISTINCT host(ip)) AS ips FROM login_attempt WHERE tenant = $1
    UNION ALL SELECT 'activity', array_agg(DISTINCT host(ip)) FROM activity WHERE tenant = $1
    UNION ALL SELECT 'violation', array_agg(DISTINCT host(ip)) FROM violation WHERE tenant = $1
    UNION ALL SELECT 'session', array_agg(DISTINCT host(ip)) FROM session WHERE tenant = $1
    UNION ALL SELECT 'member_network', array_agg(DISTINCT host(ip)) FROM member_network WHERE tenant = $1
    UNION ALL SELECT 'device', array_agg(DISTINCT host(last_ip)) FROM device WHERE tenant = $1
"""


@pytest.fixture
async def db(tenant: Tenant, database_url: str) -> AsyncIterator[Database]:
    """Connections of this test."""
    made = await Database.connect(database_url, size=2)
    yield made
    await made.close()


async def keep(tenant: Tenant, **days: int) -> None:
    """The tenant's retention from now on."""
    settings = (await tenant.call("GET", "/v1/settings", role="administrator")).body
    settings["retention"] |= days
    assert (await tenant.call("PUT", "/v1/settings", settings, role="administrator")).status == 200


async def upkept(db: Database, *jobs: Job, at: datetime = NOW) -> None:
    """Do these jobs now, whenever they were done last."""
    upkeep = Upkeep(db, now_ms=lambda: int(at.timestamp() * 1000))
    for chore in upkeep.chores:
        if chore.job in jobs:
            await db.row(FORGET, chore.job)
            await upkeep.attempt(chore)


async def held(db: Database, tenant: str, at: datetime) -> set[str]:
    """Where there is something of that time."""
    row = await db.row(HELD, tenant, at)
    assert row is not None
    return {name for name, count in row.items() if count}


LEDGERS = (Job.LOGINS, Job.ACTIVITY, Job.VIOLATIONS, Job.SESSIONS)


async def test_what_is_older_than_its_tenant_keeps_goes_and_first_and_last_access_stay(tenant: Tenant, db: Database):
    """Each ledger by its own setting, to the day; a case with its marks; of another tenant nothing."""
    other = tenant.service.tenant()
    for each in (tenant, other):
        await each.login("ana")
    await keep(tenant, logins_days=30, activity_days=60, violations_days=90)
    ages = {days: NOW - timedelta(days=days, hours=2) for days in (29, 30, 60, 90)}
    for each in (tenant, other):
        for at in ages.values():
            await db.row(AT, each.name, at, "203.0.113.9")
    access = (await tenant.see("/v1/members/ana"))["first_access_at"]

    await upkept(db, *LEDGERS)

    left = {days: await held(db, tenant.name, at) for days, at in ages.items()}
    cases = {"violation", "read_mark", "violation_case"}
    assert left == {
        29: {"login_attempt", "activity", "session"} | cases,
        30: {"activity"} | cases,
        60: cases,
        90: set(),
    }
    assert [len(await held(db, other.name, at)) for at in ages.values()] == [6] * 4
    assert (await tenant.see("/v1/members/ana"))["first_access_at"] == access
    assert (await tenant.call("GET", "/v1/audit", role="administrator")).status == 200


async def test_reports_say_the_same_when_the_months_they_were_counted_from_are_dropped(tenant: Tenant, db: Database):
    """First and last access by product, and the days, were counted before and are not counted again afterwards."""
    await tenant.login("ana")
    at = datetime(NOW.year - 5, 3, 15, tzinfo=UTC)
    names = [f"{table}_{at:%Y%m}" for table in ("login_attempt", "activity", "violation")]
    for table in ("login_attempt", "activity", "violation"):
        await db.row("SELECT ensure_partition($1, $2::date)", table, at.replace(day=1).date())
    await db.row(AT, tenant.name, at, "203.0.113.9")
    await db.row("UPDATE activity SET product_id = 'course', resource = 'w?run=1' WHERE tenant = $1", tenant.name)
    await db.row("INSERT INTO tally_past (tenant, before) VALUES ($1, $2)", tenant.name, at + timedelta(days=1))
    async with db.transaction() as tx:
        while await PastStore(tx).count(most=200):
            pass
    period = f"?from={at:%Y-%m-%d}&to={at + timedelta(days=1):%Y-%m-%d}"
    paths = [*(f"/v1/reports/{each}{period}" for each in ("activity", "logins", "refusals")), "/v1/reports/access"]
    before = [list(items(await tenant.see(path))) for path in paths]

    await upkept(db, *LEDGERS)

    assert [await db.value("SELECT to_regclass($1)::text", name) for name in names] == [None] * 3
    assert [list(items(await tenant.see(path))) for path in paths] == before
    assert [len(each) for each in before] == [1, 1, 1, 1]
    assert before[-1][0]["first_access_at"].startswith(f"{at:%Y-%m-%d}")


async def test_a_month_that_is_too_old_for_every_tenant_is_dropped_whole(tenant: Tenant, db: Database):
    """Four years back nobody keeps anything: the partition is gone, and the one of this month is not."""
    await tenant.login("ana")
    at = datetime(NOW.year - 4, 3, 15, tzinfo=UTC)
    name = f"login_attempt_{at:%Y%m}"
    await db.row("SELECT ensure_partition('login_attempt', $1::date)", at.replace(day=1).date())
    await db.row("SELECT ensure_partition('violation', $1::date)", at.replace(day=1).date())
    await db.row(AT, tenant.name, at, "203.0.113.9")

    await upkept(db, *LEDGERS)

    exists = "SELECT to_regclass($1) IS NOT NULL"
    assert not await db.value(exists, name)
    assert not await db.value(exists, f"violation_{at:%Y%m}")
    assert await db.value(exists, f"login_attempt_{NOW:%Y%m}")


async def test_addresses_are_cut_short_after_their_age_wherever_there_is_one(tenant: Tenant, db: Database):
    """IPv4 to its /24, IPv6 to its /48, each once; younger ones stay whole; two that become one are one line."""
    await tenant.login("ana", ip="203.0.113.9")
    await keep(tenant, truncate_ip_after_days=10)
    for days, ip in ((11, "198.51.100.77"), (12, "2001:db8:aa:bb::1"), (9, "198.51.100.78")):
        await db.row(AT, tenant.name, NOW - timedelta(days=days), ip)
    await db.row("UPDATE device SET last_seen_at = $2 WHERE tenant = $1", tenant.name, NOW - timedelta(days=11))

    for _ in range(2):
        await upkept(db, Job.ADDRESSES)

    found = {row["name"]: set(row["ips"]) for row in await db.fetch(ADDRESSES, tenant.name)}
    assert found.pop("device") == {"203.0.113.0"}
    for name, ips in found.items():
        assert ips - {"203.0.113.9"} == {"198.51.100.0", "2001:db8:aa::", "198.51.100.78"}, name
    assert (
        await db.value("SELECT count(*) FROM member_network WHERE tenant = $1 AND city IS NOT NULL", tenant.name) == 1
    )


@pytest.mark.parametrize(
    ("path", "days"),
    [
        pytest.param("logins", "logins_days", id="logins"),
        pytest.param("sessions", "logins_days", id="sessions"),
        pytest.param("activity", "activity_days", id="activity"),
        pytest.param("violations", "violations_days", id="violations"),
    ],
)
async def test_each_row_tells_when_it_goes(tenant: Tenant, db: Database, path: str, days: str):
    """From its time on, as many days as its tenant keeps it."""
    await tenant.login("ana")
    await keep(tenant, **{days: 40})
    await db.row(AT, tenant.name, NOW - timedelta(days=1), "203.0.113.9")

    (*_, oldest) = items(await tenant.see(f"/v1/members/ana/{path}"))

    said = datetime.fromisoformat(oldest["retained_until"])
    ended = timedelta(hours=1) if path == "sessions" else timedelta(0)
    assert abs(said - (NOW + ended + timedelta(days=39))) < timedelta(seconds=1)
