"""With PostgreSQL out, logins are decided on what is known, wait in Valkey, and are drained exactly once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from accessguard.errors import ErrorCode, GuardError
from tests.journeys.outage import back, out, outage, refuse_attempts, until
from tests.journeys.outage import tenant as tenant  # noqa: PLC0414 - a fixture
from tests.journeys.outage import there as there  # noqa: PLC0414 - a fixture
from tests.service import CHROME, Tenant, items, running

pytestmark = pytest.mark.chaos


async def test_a_login_in_an_outage_works_and_is_recorded_once_it_is_over(there, tenant):
    """Its session and its device token are good at once and for ever after; it is in the log with its own time."""
    await out(there, tenant)
    login = await tenant.login("ana", attempt_id=str(uuid4()))
    during = await tenant.check(login, device_token=login["device"]["token"])
    await back(there)

    after = await tenant.check(login, device_token=login["device"]["token"])
    (line,) = items(await tenant.see("/v1/members/ana/logins"))
    (session,) = items(await tenant.see("/v1/members/ana/sessions"))
    (device,) = items(await tenant.see("/v1/members/ana/devices"))
    again = await tenant.login("ana", device_token=login["device"]["token"])

    assert (login.status, login["decision"], login["degraded"]) == (200, "allow", True)
    assert (during["decision"], during["member_id"], during["degraded"]) == ("allow", "ana", True)
    assert (after["decision"], after["degraded"]) == ("allow", False)
    assert (line["id"], line["degraded"], line["session_id"]) == (login["attempt_id"], True, login["session"]["id"])
    assert session["id"] == login["session"]["id"]
    assert session["started_at"] == line["at"]
    assert device["id"] == login["device"]["id"] == again["device"]["id"]
    assert again["ended_sessions"] == [{"id": login["session"]["id"], "reason": "replaced"}]


async def test_a_retry_gets_the_same_answer_during_and_after_the_outage(there, tenant):
    """Whoever asks again under the same attempt id changes nothing."""
    attempt_id = str(uuid4())
    await out(there, tenant)
    first = await tenant.login("ana", attempt_id=attempt_id)
    second = await tenant.login("ana", attempt_id=attempt_id)
    other = await tenant.login("ana", attempt_id=attempt_id, method="sso")
    await back(there)
    third = await tenant.login("ana", attempt_id=attempt_id)

    assert first.status == 200
    assert first.body == second.body == third.body
    assert other.status == 409
    assert len(list(items(await tenant.see("/v1/members/ana/logins")))) == 1


async def test_another_worker_checks_a_session_that_waits(there, tenant):
    """What is known of it is in Valkey, not in the worker that let it in."""
    async with running(there.stores.database_url, there.stores.redis_url) as second:
        elsewhere = Tenant(second, tenant.name)
        await elsewhere.check("nobody")
        await out(there, tenant)
        login = await tenant.login("ana")
        answer = await elsewhere.check(login)
        await back(there)
        await there.drained(second)

    assert (answer["decision"], answer["member_id"]) == ("allow", "ana")


async def test_the_logins_of_a_member_are_drained_in_order(there, tenant):
    """The second, from the same device, ended the first, and so it stands in PostgreSQL."""
    await out(there, tenant)
    first = await tenant.login("ana")
    second = await tenant.login("ana", device_token=first["device"]["token"])
    gone = await tenant.check(first)
    await back(there)

    sessions = {each["id"]: each for each in items(await tenant.see("/v1/members/ana/sessions"))}
    assert second["ended_sessions"] == [{"id": first["session"]["id"], "reason": "replaced"}]
    assert gone["reason"]["code"] == "session_ended"
    assert sessions[first["session"]["id"]]["end_reason"] == "replaced"
    assert sessions[second["session"]["id"]]["status"] == "open"
    assert len(list(items(await tenant.see("/v1/members/ana/devices")))) == 1


async def test_what_can_never_be_written_is_set_aside_and_holds_up_nobody(there, tenant):
    """Its session has been taken by somebody else; it goes to the dead letters, the next one is written."""
    spool = there.worker.context.spooling._spool
    await tenant.login("ben", session_id="taken")
    before = await spool.dead()
    await out(there, tenant)
    await tenant.login("ana", session_id="taken")
    cleo = await tenant.login("cleo")
    await back(there)

    assert await spool.dead() == before + 1
    assert (await tenant.check(cleo))["decision"] == "allow"
    (session,) = items(await tenant.see("/v1/members/ben/sessions"))
    assert session["id"] == "taken"


async def test_a_login_that_fails_for_a_reason_nobody_thought_of_holds_up_nobody(there, tenant):
    """Once another one got through, it goes to the dead letters; the worker drains by itself."""
    spool = there.worker.context.spooling._spool
    before = await spool.dead()
    await refuse_attempts(there, "ana", "P0001")
    try:
        await out(there, tenant)
        await tenant.login("ana")
        ben = await tenant.login("ben")
        await there.start_postgres()
        await until(lambda: there.worker.context.spooling.pending == 0)
    finally:
        await refuse_attempts(there, "", "P0001")

    assert await spool.dead() == before + 1
    assert len(list(items(await tenant.see("/v1/members/ben/logins")))) == 1
    assert (await tenant.check(ben))["decision"] == "allow"


async def test_while_no_login_can_be_written_none_is_set_aside(there, tenant, monkeypatch):
    """What fails alike for all of them is no fault of theirs; they are tried again, and only in the end the oldest is given up.

    One that is passed over, because somebody holds its member, has not got through.
    """
    spooling = there.worker.context.spooling
    before = await spooling._spool.dead()
    await tenant.login("cleo")
    await refuse_attempts(there, "%", "P0001")
    try:
        await out(there, tenant)
        for member in ("ana", "ben", "cleo"):
            await tenant.login(member)
        await there.start_postgres()
        await until(lambda: not there.worker.context.ready._db.breaker.open)
        await until(lambda: spooling._failures > 0)
        foreign = await asyncpg.connect(there.stores.database_url)
        async with foreign.transaction():
            await foreign.execute("SELECT 1 FROM member WHERE tenant = $1 AND id = 'cleo' FOR UPDATE", tenant.name)
            await until(lambda: (tenant.name, "cleo") in spooling._held)
            failures = spooling._failures
            await until(lambda: spooling._failures > failures or not spooling.pending)
        await foreign.close()
    finally:
        await refuse_attempts(there, "", "P0001")
    await there.drained()

    assert await spooling._spool.dead() == before
    for member in ("ana", "ben"):
        assert len(list(items(await tenant.see(f"/v1/members/{member}/logins")))) == 1


async def test_a_full_spool_refuses_and_keeps_what_it_has(there, tenant, monkeypatch):
    """Nothing is trimmed to make room."""
    await out(there, tenant)
    first = await tenant.login("ana")
    monkeypatch.setattr("accessguard.sessions.spool.MOST", 1)
    second = await tenant.login("ben")
    monkeypatch.undo()
    await back(there)

    assert (second.status, "Retry-After" in second.headers) == (503, True)
    assert (await tenant.check(first))["decision"] == "allow"


async def test_activity_of_a_session_that_waits_is_not_lost(there, tenant):
    """Its beats wait until the session is there."""
    await out(there, tenant)
    login = await tenant.login("ana", user_agent=CHROME.format(142))
    await tenant.check(login, activity="lesson_open")
    await back(there)
    await there.worker.context.activity.flush()

    card = await tenant.see("/v1/members/ana")
    assert card["last_activity"]["session_id"] == login["session"]["id"]


async def test_operators_are_told_how_much_waits(there, tenant):
    """On the worker that drains, as long as something is left."""
    await out(there, tenant)
    await tenant.login("ana")
    during = await tenant.see("/v1/members")
    ready = await tenant.call("GET", "/readyz")
    await back(there)

    assert (during.status, during.headers["AccessGuard-Pending"]) == (503, "1")
    assert (ready.status, ready["pending"], ready["parts"]["postgres"]) == (200, 1, "down")
    assert "AccessGuard-Pending" not in (await tenant.see("/v1/members")).headers


async def test_a_crash_between_the_commit_and_the_removal_writes_nothing_twice(there, tenant, monkeypatch):
    """What is found in the stream and in the log is passed over, and let go."""
    spooling = there.worker.context.spooling
    let_go, failed = spooling._spool.let_go, list[Any]()

    async def once(entry: Any, *, dead: bool = False) -> None:
        if not failed:
            failed.append(entry)
            raise GuardError(ErrorCode.UNAVAILABLE, "gone")
        await let_go(entry, dead=dead)

    await out(there, tenant)
    login = await tenant.login("ana")
    monkeypatch.setattr(spooling._spool, "let_go", once)
    await there.start_postgres()
    await until(lambda: not there.worker.context.ready._db.breaker.open)
    with contextlib.suppress(GuardError):
        await spooling.look()
    await there.drained()
    assert failed

    (line,) = items(await tenant.see("/v1/members/ana/logins"))
    assert line["id"] == login["attempt_id"]
    assert (await tenant.check(login))["decision"] == "allow"


@pytest.mark.parametrize("session_id", ["of-the-platform", None], ids=["same session", "another session"])
async def test_an_attempt_that_was_written_before_its_answer_was_lost_is_no_dead_letter(
    there, tenant, monkeypatch, session_id
):
    """Asked for again without PostgreSQL, at another time: every session that was answered is there, and no line twice."""
    spooling, attempt_id = there.worker.context.spooling, str(uuid4())
    before = await spooling._spool.dead()

    async def unavailable(*_: Any) -> None:
        raise GuardError(ErrorCode.UNAVAILABLE, "gone")

    first = await tenant.login("ana", attempt_id=attempt_id, session_id=session_id)
    there.worker.clock.forward(1_500)
    with monkeypatch.context() as patched:
        patched.setattr(there.worker.context.logins._together, "read", unavailable)
        second = await tenant.login("ana", attempt_id=attempt_id, session_id=session_id)
    await there.drained()

    lines = list(items(await tenant.see("/v1/members/ana/logins")))
    answered = {first["session"]["id"], second["session"]["id"]}
    assert second["degraded"] is True
    assert await spooling._spool.dead() == before
    assert {each["session_id"] for each in lines} == answered
    assert [each["id"] for each in lines].count(attempt_id) == 1
    assert {each["id"] for each in items(await tenant.see("/v1/members/ana/sessions"))} == answered
    assert len(lines) == len(answered)


async def test_a_member_whom_somebody_holds_holds_up_nobody_else(there, tenant, monkeypatch):
    """The others' logins are written meanwhile; theirs are afterwards, in the order in which they were answered."""
    spooling = there.worker.context.spooling

    async def unavailable(*_: Any) -> None:
        raise GuardError(ErrorCode.UNAVAILABLE, "gone")

    await tenant.login("ana")
    foreign = await asyncpg.connect(there.stores.database_url)
    try:
        async with foreign.transaction():
            await foreign.execute("SELECT 1 FROM member WHERE tenant = $1 AND id = 'ana' FOR UPDATE", tenant.name)
            with monkeypatch.context() as patched:
                patched.setattr(there.worker.context.logins._together, "read", unavailable)
                kept = [await tenant.login(member) for member in ("ana", "ben", "ana", "cleo")]
            await spooling.look()  # with all four: there may have been two when it was counted last
            await until(lambda: spooling.pending == 2)
            during = [len(list(items(await tenant.see(f"/v1/members/{each}/logins")))) for each in ("ben", "cleo")]
    finally:
        await foreign.close()
    await there.drained()

    lines = list(items(await tenant.see("/v1/members/ana/logins")))
    assert during == [1, 1]
    assert [each["id"] for each in lines[:2]] == [kept[2]["attempt_id"], kept[0]["attempt_id"]]
    assert len(lines) == 3


async def test_a_drain_that_crashes_is_begun_again_by_itself(there, tenant, monkeypatch):
    """Nobody has to look after it, whatever it was that failed."""
    spooling = there.worker.context.spooling
    let_go, failed = spooling._spool.let_go, list[Any]()

    async def once(entry: Any, *, dead: bool = False) -> None:
        if not failed:
            failed.append(entry)
            raise RuntimeError("nobody thought of this")
        await let_go(entry, dead=dead)

    await out(there, tenant)
    logins = [await tenant.login(member) for member in ("ana", "ben", "cleo")]
    monkeypatch.setattr(spooling._spool, "let_go", once)
    await there.start_postgres()
    await until(lambda: bool(failed) and spooling.pending == 0)

    for member, login in zip(("ana", "ben", "cleo"), logins, strict=True):
        (line,) = items(await tenant.see(f"/v1/members/{member}/logins"))
        assert line["id"] == login["attempt_id"]


async def test_who_logs_in_again_and_again_gets_out_of_the_spool(there, tenant):
    """Once PostgreSQL is back, a login waits for the ones before it to be drained, instead of joining them."""
    await out(there, tenant)
    first = await tenant.login("ana")
    await there.start_postgres()
    await until(lambda: not there.worker.context.ready._db.breaker.open)
    second = await tenant.login("ana")
    await there.drained()

    assert (first["degraded"], second["degraded"]) == (True, False)


async def test_a_stop_drains_and_flushes_but_does_not_wait_for_a_drain_without_end(tmp_path, monkeypatch):
    """What waits in Valkey is safe there; a beat of this worker would be lost."""
    monkeypatch.setattr("accessguard.guard.spooling.LOOK_S", 600)  # so that it is the stop that drains
    waited = asyncio.Event()

    async def unavailable(_: Any) -> None:
        raise GuardError(ErrorCode.UNAVAILABLE, "gone")

    async def without_end(_: Any) -> None:
        waited.set()
        await asyncio.Event().wait()

    async with outage(tmp_path) as own:
        stores = own.stores
        async with asyncio.timeout(60), running(stores.database_url, stores.redis_url) as worker:
            tenant = worker.tenant()
            login = await tenant.login("zoe")
            monkeypatch.setattr(worker.context.logins._together, "read", unavailable)
            ana = await tenant.login("ana")
            monkeypatch.setattr(worker.context.spooling._spool, "let_go", without_end)
            await tenant.check(login, activity="lesson_open")
        connection = await asyncpg.connect(stores.database_url)
        drained = await connection.fetchval("SELECT count(*) FROM login_attempt WHERE member_id = 'ana'")
        active = await connection.fetchval("SELECT kind FROM member_activity WHERE member_id = 'zoe'")
        await connection.close()

    assert ana["degraded"] is True
    assert waited.is_set()
    assert (drained, active) == (1, "lesson_open")


async def test_a_login_whose_write_may_or_may_not_have_arrived_is_there_once(there, tenant, monkeypatch):
    """PostgreSQL had committed it when its answer was lost; what was decided is what is answered."""
    desk = there.worker.context.logins._together
    record = desk.record

    async def unheard(rows: Any) -> None:
        await record(rows)
        raise GuardError(ErrorCode.UNAVAILABLE, "lost")

    monkeypatch.setattr(desk, "record", unheard)
    login = await tenant.login("ana")
    monkeypatch.undo()
    await there.drained()

    (line,) = items(await tenant.see("/v1/members/ana/logins"))
    (session,) = items(await tenant.see("/v1/members/ana/sessions"))
    assert (login.status, login["degraded"]) == (200, True)
    assert (line["id"], session["id"]) == (login["attempt_id"], login["session"]["id"])
    again = await tenant.login("ana", device_token=login["device"]["token"])
    assert again["device"]["id"] == login["device"]["id"]
