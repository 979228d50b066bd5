"""Partitions are there before the months that need them; what has expired goes; one worker at a time does it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from accessguard.app import clock_ms
from accessguard.database import Database
from accessguard.guard.facts import to_ms
from accessguard.guard.upkeep import AGAIN_S, Chore, Job, Upkeep
from tests.service import Service, Tenant

ROOT = Path(__file__).parents[2]
HOLDER = """
import asyncio, sys
from datetime import timedelta
from accessguard.app import clock_ms
from accessguard.database import Database
from accessguard.guard.upkeep import Chore, Job, Upkeep

async def step(tx, now):
    print("inside", flush=True)
    await asyncio.sleep(60)

async def main():
    db = await Database.connect(sys.argv[1], size=1, timeout_s=60)
    chore = Chore(job=Job.JOBS, every=timedelta(hours=1), step=step)
    await Upkeep(db, now_ms=clock_ms, chores=(chore,)).attempt(chore)

asyncio.run(main())
"""

PARTITIONS = """
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
     WHERE p.relname = $1 ORDER BY 1
"""


async def test_three_months_of_partitions_are_made_and_making_them_again_changes_nothing(
    service: Service, database_url: str
):
    """The month of the time given and the next two, over the end of a year, for each of the three tables."""
    db = await Database.connect(database_url, size=1)
    at_ms = to_ms(datetime(2031, 11, 30, 23, 59, tzinfo=UTC))
    upkeep = Upkeep(db, now_ms=lambda: at_ms)

    for _ in range(2):
        await upkeep.once()
    made = {parent: [row[0] for row in await db.fetch(PARTITIONS, parent)] for parent in ("login_attempt", "violation")}
    await db.close()

    for parent, names in made.items():
        assert [name for name in names if "_203" in name] == [f"{parent}_{m}" for m in ("203111", "203112", "203201")]


async def test_a_login_lies_in_the_partition_of_its_month(tenant: Tenant, database_url: str):
    """A worker makes the partitions before it serves, so that nothing goes to the default one."""
    db = await Database.connect(database_url, size=1)

    await tenant.login()
    table = await db.value("SELECT tableoid::regclass::text FROM login_attempt WHERE tenant = $1", tenant.name)
    await db.close()

    assert table == f"login_attempt_{datetime.now(UTC):%Y%m}"


OLD = """
    WITH t AS (SELECT $1::text AS tenant, $2::timestamptz AS at)
    , keys AS (INSERT INTO login_key SELECT tenant, gen_random_uuid(), 'f', 's', '{}', at FROM t)
    , idem AS (INSERT INTO idempotency SELECT tenant, 'c', at::text, 'f', gen_random_uuid(), at FROM t)
    , jobs AS (INSERT INTO job (tenant, id, kind, state, created_at, updated_at, expires_at)
               SELECT tenant, gen_random_uuid(), 'simulate', 'done', at, at, at FROM t)
    , seen AS (INSERT INTO member_network (tenant, member_id, session_id, ip, first_at, last_at)
               SELECT tenant, 'ana', at::text, '192.0.2.1', at, at FROM t)
    INSERT INTO challenge (tenant, id, member_id, rule_id, rule_version, subject, stage, created_at, expires_at)
    SELECT tenant, gen_random_uuid(), 'ana', gen_random_uuid(), 1, '', 'login', at, at FROM t
"""
LEFT = """
    SELECT (SELECT count(*) FROM login_key WHERE tenant = $1 AND at = $2)::int AS login_keys,
           (SELECT count(*) FROM idempotency WHERE tenant = $1 AND at = $2)::int AS idempotency_keys,
           (SELECT count(*) FROM job WHERE tenant = $1 AND expires_at = $2)::int AS jobs,
           (SELECT count(*) FROM challenge WHERE tenant = $1 AND created_at = $2)::int AS challenges,
           (SELECT count(*) FROM member_network WHERE tenant = $1 AND last_at = $2)::int AS networks
"""
FORGET = "DELETE FROM upkeep WHERE job = $1"


@pytest.fixture
async def db(service: Service, database_url: str) -> AsyncIterator[Database]:
    """Connections of this test."""
    made = await Database.connect(database_url, size=4)
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("age", "left"),
    [
        pytest.param(timedelta(hours=71), {"login_keys", "idempotency_keys", "challenges", "networks"}, id="71 hours"),
        pytest.param(timedelta(hours=73), {"challenges", "networks"}, id="73 hours"),
        pytest.param(timedelta(days=29), {"challenges", "networks"}, id="29 days"),
        pytest.param(timedelta(days=31), {"challenges"}, id="past what this tenant keeps of logins"),
        pytest.param(timedelta(days=366), set(), id="past what is kept by default"),
    ],
)
async def test_what_has_expired_goes_and_nothing_else(tenant: Tenant, db: Database, age: timedelta, left: set[str]):
    """Keys after 72 hours, results when nobody can read them, networks and challenges when their tenant keeps no more."""
    await tenant.login()
    settings = (await tenant.call("GET", "/v1/settings", role="administrator")).body
    settings["retention"]["logins_days"] = 30
    assert (await tenant.call("PUT", "/v1/settings", settings, role="administrator")).status == 200
    at = datetime.now(UTC) - age
    await db.row(OLD, tenant.name, at)
    upkeep = Upkeep(db, now_ms=tenant.service.clock)

    for chore in upkeep.chores:
        await db.row(FORGET, chore.job)
        await upkeep.attempt(chore)
    found = await db.row(LEFT, tenant.name, at)

    assert found is not None
    assert {name for name, count in found.items() if count} == left


async def test_a_clock_that_runs_ahead_deletes_nothing(tenant: Tenant, db: Database):
    """What is deleted by its age is old by PostgreSQL's clock as well."""
    await tenant.login()
    at = datetime.now(UTC) - timedelta(hours=1)
    await db.row(OLD, tenant.name, at)
    ahead_ms = to_ms(datetime.now(UTC) + timedelta(days=4000))
    upkeep = Upkeep(db, now_ms=lambda: ahead_ms)

    for chore in upkeep.chores:
        if chore.job is not Job.PARTITIONS:
            await db.row(FORGET, chore.job)
            await upkeep.attempt(chore)
    found = await db.row(LEFT, tenant.name, at)

    assert found is not None
    assert {name for name, count in found.items() if count} == {
        *("login_keys", "idempotency_keys", "challenges", "networks")
    }


async def test_a_job_is_done_in_bounded_steps_and_is_not_due_again_before_its_time(db: Database):
    """Full steps are followed by another; afterwards every worker waits until it is due."""
    rows = iter([5, 5, 2])
    done: list[int] = []

    async def step(_: Database, __: datetime) -> int:
        done.append(next(rows))
        return done[-1]

    chore = Chore(job=Job.JOBS, every=timedelta(hours=2), step=step, most=5)
    await db.row(FORGET, chore.job)

    first = await Upkeep(db, now_ms=clock_ms, chores=(chore,)).attempt(chore)
    second = await Upkeep(db, now_ms=clock_ms, chores=(chore,)).attempt(chore)

    assert done == [5, 5, 2]
    assert first == 7200
    assert 7190 < second <= 7200


async def test_a_job_that_another_worker_is_at_is_left_to_it(db: Database):
    """One at a time; who comes second looks again soon."""
    inside, leave = asyncio.Event(), asyncio.Event()
    begun: list[str] = []

    async def slow(_: Database, __: datetime) -> int:
        begun.append("slow")
        inside.set()
        await leave.wait()
        return 0

    chore = Chore(job=Job.JOBS, every=timedelta(hours=1), step=slow)
    await db.row(FORGET, chore.job)
    going = asyncio.create_task(Upkeep(db, now_ms=clock_ms, chores=(chore,)).attempt(chore))
    await inside.wait()

    again_s = await Upkeep(db, now_ms=clock_ms, chores=(chore,)).attempt(chore)
    leave.set()
    await going

    assert begun == ["slow"]
    assert again_s == AGAIN_S


async def test_jobs_that_need_a_second_connection_do_not_wait_for_each_other(database_url: str):
    """Where there are no more connections than such jobs, one goes on with two of them while the others wait."""
    two = await Database.connect(database_url, size=2, timeout_s=3)
    done: list[str] = []

    async def step(_: Database, __: datetime) -> int:
        await asyncio.sleep(0.2)  # by now each of them would have one
        done.append(await two.value("SELECT 'beside'"))
        return 0

    jobs = (Job.PARTITIONS, Job.SAMPLES, Job.SHEETS)
    chores = [Chore(job=job, every=timedelta(), step=step, most=0, beside=True) for job in jobs]
    upkeep = Upkeep(two, now_ms=clock_ms, chores=chores)
    try:
        rests = await asyncio.gather(*map(upkeep.attempt, chores))
    finally:
        await two.close()

    assert (done, rests) == (["beside"] * 3, [0] * 3)


@pytest.mark.chaos
async def test_a_job_moves_when_the_worker_that_is_at_it_is_killed(db: Database, database_url: str):
    """Killed in the middle of a step: the next one that looks does it, and the half of it is undone."""
    done: list[str] = []

    async def step(_: Database, __: datetime) -> int:
        done.append("here")
        return 0

    chore = Chore(job=Job.JOBS, every=timedelta(hours=1), step=step)
    upkeep = Upkeep(db, now_ms=clock_ms, chores=(chore,))
    await db.row(FORGET, chore.job)
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, database_url, cwd=ROOT, stdout=-1)
    assert other.stdout is not None
    assert await other.stdout.readline() == b"inside\n"

    while_it_lives = await upkeep.attempt(chore)
    before = list(done)
    other.kill()
    await other.wait()
    async with asyncio.timeout(20):
        while not done:  # until PostgreSQL has noticed
            await upkeep.attempt(chore)

    assert (while_it_lives, before, done) == (AGAIN_S, [], ["here"])
