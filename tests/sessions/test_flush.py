"""Last activity in PostgreSQL: forward only, at most once in 30 s, in bulk."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from accessguard.database import Database
from accessguard.errors import GuardError
from accessguard.metrics import ACTIVITY_DROPPED
from accessguard.rules.model import Activity
from accessguard.sessions import activity as room
from accessguard.sessions.activity import INTERVAL, ActivityLog
from accessguard.sessions.model import Beat
from accessguard.sessions.store import SessionStore
from tests.service import FIREFOX, Service, Tenant, items


class Line:
    """One session, and beats of it at seconds after its first one."""

    def __init__(self, tenant: Tenant, login: Any, member: str) -> None:
        self.tenant, self.login, self.member = tenant, login, member
        self.first = datetime.fromisoformat(login["session"]["expires_at"]) - timedelta(days=90) + timedelta(seconds=5)

    def beat(self, seconds: float = 0, **more: Any) -> Beat:
        """One interaction, so many seconds after the first."""
        given: dict[str, Any] = {
            "tenant": self.tenant.name,
            "member_id": self.member,
            "session_id": self.login["session"]["id"],
            "at": self.first + timedelta(seconds=seconds),
            "kind": Activity.LESSON_OPEN,
            "resource": f"at {seconds}",
            "product_id": None,
            "ip": "203.0.113.9",
        }
        return Beat(**given | more)

    async def last(self) -> float | None:
        """Last activity of the session, in seconds after the first beat."""
        (session,) = [
            each
            for each in items(await self.tenant.see(f"/v1/members/{self.member}/sessions"))
            if each["id"] == self.login["session"]["id"]
        ]
        at = session["last_activity_at"]
        return None if at is None else (datetime.fromisoformat(at) - self.first).total_seconds()


@pytest.fixture
def store(service: Service) -> SessionStore:
    """The sessions of the run's PostgreSQL."""
    return service.context.sessions


@pytest.fixture
async def line(tenant: Tenant) -> Line:
    """A session of Ana's."""
    return Line(tenant, await tenant.login(), "ana")


@pytest.mark.parametrize(
    ("beats", "last"),
    [
        pytest.param([0], 0, id="first"),
        pytest.param([0, 29.999], 0, id="29.999 s later"),
        pytest.param([0, 30], 30, id="exactly 30 s later"),
        pytest.param([0, 29.999, 30], 30, id="a suppressed one does not stretch the window"),
        pytest.param([0, 29.999, 59.998], 59.998, id="nor move where it is counted from"),
        pytest.param([60, 0], 60, id="late"),
        pytest.param([60, 29, 45, 0], 60, id="out of order"),
        pytest.param([60, 0, 90], 90, id="late, then on time"),
        pytest.param([0, 0], 0, id="twice"),
    ],
)
@pytest.mark.parametrize("together", [pytest.param(False, id="one by one"), pytest.param(True, id="around one")])
async def test_last_activity_moves_forward_at_most_once_in_thirty_seconds(store, line, beats, last, together):
    """Whatever arrives when; in a flush of many, each session's newest counts."""
    if together:
        stranger = Line(line.tenant, await line.tenant.login("ben"), "ben")
        for each in beats:
            await store.flush([stranger.beat(each), line.beat(each)], INTERVAL)
    else:
        for each in beats:
            await store.flush([line.beat(each)], INTERVAL)

    assert await line.last() == last


async def test_many_beats_of_one_session_in_one_flush_leave_the_newest(store, line):
    """After an outage a worker has several of each session; the access log keeps them all."""
    moved = await store.flush([line.beat(30), line.beat(90), line.beat(0), line.beat(60)], INTERVAL)

    assert moved == 1
    assert await line.last() == 90
    kept = list(items(await line.tenant.see("/v1/members/ana/activity?order=asc")))
    assert [each["resource"] for each in kept] == ["at 0", "at 30", "at 60", "at 90"]


async def test_the_member_and_the_device_move_with_the_session(store, line):
    """The list of members shows the newest of all sessions, and none of them moves it back."""
    other = Line(line.tenant, await line.tenant.login(user_agent=FIREFOX), "ana")
    await store.flush([line.beat(300, kind=Activity.VIDEO_WATCH)], INTERVAL)
    await store.flush([other.beat(100)], INTERVAL)

    card = await line.tenant.see("/v1/members/ana")
    devices = {each["id"]: each for each in items(await line.tenant.see("/v1/members/ana/devices"))}

    assert card["last_activity"]["kind"] == "video_watch"
    assert card["last_activity"]["session_id"] == line.login["session"]["id"]
    seen = datetime.fromisoformat(devices[line.login["device"]["id"]]["last_seen_at"])
    assert seen == line.first + timedelta(seconds=300)


async def test_a_beat_of_what_is_gone_stops_nobody_elses(store, line):
    """A session that was never there is passed over."""
    moved = await store.flush([line.beat(session_id="never"), line.beat(), line.beat(tenant="nowhere")], INTERVAL)

    assert moved == 1
    assert await line.last() == 0


async def test_two_workers_that_flush_the_same_move_it_once(store, line):
    """Both saw an interaction of the same 30 s; one of them counts."""
    moved = await asyncio.gather(*(store.flush([line.beat(i / 1000)], INTERVAL) for i in range(10)))

    assert sum(moved) == 1
    assert 0 <= (await line.last() or 0) < 0.01


async def test_flushes_of_many_sessions_in_any_order_do_not_block_each_other(store, tenant):
    """Ten workers with the same forty sessions, each in its own order."""
    lines = [Line(tenant, await tenant.login(f"m{i}"), f"m{i}") for i in range(20)]

    async with asyncio.timeout(20):
        await asyncio.gather(
            *(
                store.flush(
                    [each.beat(60 * turn) for each in (lines[turn:] + lines[:turn])[:: 1 if turn % 2 else -1]], INTERVAL
                )
                for turn in range(10)
            )
        )

    assert {await each.last() for each in lines} == {540}


async def test_a_flush_waits_behind_a_login_without_a_deadlock(service, store, line):
    """A login takes the member first and its sessions then; a flush in between must not hold one and want the other."""
    name, session_id = line.tenant.name, line.login["session"]["id"]
    async with service.context.sessions._db.transaction() as login:
        await login.row("UPDATE member SET generation = generation WHERE tenant = $1 AND id = 'ana'", name)
        flushing = asyncio.create_task(store.flush([line.beat()], INTERVAL))
        await _is_waited_for(service)
        await login.row("UPDATE session SET ended_at = now() WHERE tenant = $1 AND id = $2", name, session_id)

    assert await flushing == 1


async def test_ending_a_session_waits_behind_a_login_without_a_deadlock(service, line):
    """The same for a logout at the instant of a login."""
    name, session_id = line.tenant.name, line.login["session"]["id"]
    async with service.context.sessions._db.transaction() as login:
        await login.row("UPDATE member SET generation = generation WHERE tenant = $1 AND id = 'ana'", name)
        ending = asyncio.create_task(line.tenant.call("POST", f"/v1/sessions/{session_id}/end"))
        await _is_waited_for(service)
        await login.row(
            "UPDATE session SET ended_at = now(), end_reason = 'session_limit' WHERE tenant = $1 AND id = $2",
            name,
            session_id,
        )
    ended = await ending

    assert (ended.status, ended["ended"]) == (200, False)
    assert ended["session"]["end_reason"] == "session_limit"


async def _is_waited_for(service: Service) -> None:
    """Wait until some connection of the database waits for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(5):
        while not await service.context.sessions._db.value(waiting):
            await asyncio.sleep(0.005)


async def test_beats_that_cannot_be_written_stay_and_are_written_later(service, line, database_url):
    """In their order, with those that came meanwhile; a flush that fails says so."""
    closed = await Database.connect(database_url, size=1)
    store = SessionStore(closed)
    log = ActivityLog(store, clock=lambda: 0.0)
    log.add(line.beat(0))
    await closed.close()

    with pytest.raises(GuardError):
        await log.flush()
    log.add(line.beat(30))
    log._store = service.context.sessions
    await log.flush()

    assert await line.last() == 30
    kept = list(items(await line.tenant.see("/v1/members/ana/activity?order=asc")))
    assert [each["resource"] for each in kept] == ["at 0", "at 30"]
    assert log._pending == []


async def test_what_is_pending_is_bounded_and_the_oldest_go(line, database_url, monkeypatch):
    """During a long outage a worker keeps the newest and counts what it gave up."""
    monkeypatch.setattr(room, "MOST_PENDING", 10)
    closed = await Database.connect(database_url, size=1)
    await closed.close()
    log = ActivityLog(SessionStore(closed), clock=lambda: 0.0)
    before = ACTIVITY_DROPPED._value.get()

    for each in range(25):
        log.add(line.beat(each))
    with pytest.raises(GuardError):
        await log.flush()

    assert [each.resource for each in log._pending] == [f"at {each}" for each in range(15, 25)]
    assert ACTIVITY_DROPPED._value.get() - before == 15


async def test_a_flush_ends_after_what_was_pending_is_written(service, line):
    """Also when another flush is under way: who asks for a list sees what was there."""
    log = ActivityLog(service.context.sessions, clock=lambda: 0.0)
    log.add(line.beat(0))

    first, second = asyncio.create_task(log.flush()), asyncio.create_task(log.flush())
    await second

    assert await line.last() == 0
    await first


async def test_more_than_one_statement_takes_is_written_in_several(service, line, monkeypatch):
    """Nothing is left over."""
    monkeypatch.setattr(room, "MOST_AT_ONCE", 3)
    log = ActivityLog(service.context.sessions, clock=lambda: 0.0)
    for each in range(10):
        log.add(line.beat(each * 30))

    await log.flush()

    assert log._pending == []
    assert await line.last() == 270
