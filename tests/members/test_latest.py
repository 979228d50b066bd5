"""Where a member's last activity lies never shows: beside the row while it moves, in the row once it rests."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from accessguard.database import Database
from accessguard.members.gathering import GatherStore
from accessguard.members.latest import SILENT, LatestStore
from accessguard.members.pages import PageStore
from accessguard.sessions.activity import INTERVAL
from accessguard.sessions.store import SessionStore
from tests.service import Service, Tenant, items
from tests.sessions.test_flush import Line

ROW = "SELECT xmin::text AS version, last_activity_at FROM member WHERE tenant = $1 AND id = $2"
BESIDE = "SELECT member_id FROM member_activity WHERE tenant = $1 ORDER BY member_id"
HOSTILE = "a/b%2F\u202eא🎓"


@pytest.fixture
def db(service: Service) -> Database:
    """The run's PostgreSQL."""
    return service.context.members._db


@pytest.fixture
async def lines(tenant: Tenant) -> dict[str, Line]:
    """One session each of three members."""
    ids = ("ana", "ben", HOSTILE)
    return {each: Line(tenant, await tenant.login(each), each) for each in ids}


async def listed(tenant: Tenant, order: str = "desc") -> list[tuple[str, Any]]:
    """Who is listed by last activity, and with which, read in pages of one."""
    found: list[tuple[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await tenant.see(f"/v1/members?sort=last_activity&order={order}&limit=1{cursor}")
        found += [(each["member_id"], each["last_activity"]) for each in items(page)]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    return found


async def beside(db: Database, tenant: Tenant) -> list[str]:
    """Whose last activity lies beside the row."""
    return [row["member_id"] for row in await db.fetch(BESIDE, tenant.name)]


async def test_a_beat_leaves_the_row_of_its_member_alone(db: Database, service: Service, lines: dict[str, Line]):
    """Its dozen of indexes are not written for it, and the list shows the beat all the same."""
    ana = lines["ana"]
    before = await db.row(ROW, ana.tenant.name, "ana")

    for seconds in (0, 30, 60):
        await service.context.sessions.flush([ana.beat(seconds)], INTERVAL)

    assert await db.row(ROW, ana.tenant.name, "ana") == before
    assert [each for each, _ in await listed(ana.tenant)] == ["ana", *sorted({"ben", HOSTILE}, reverse=True)]
    card = await ana.tenant.see("/v1/members/ana")
    assert datetime.fromisoformat(card["last_activity"]["at"]) == ana.first + timedelta(seconds=60)


async def test_taking_it_over_changes_nothing_that_is_seen(db: Database, service: Service, lines: dict[str, Line]):
    """Lists in both orders, page by page, and who was active are the same before and after; only the silent are taken over."""
    tenant, sessions = lines["ana"].tenant, service.context.sessions
    await sessions.flush([lines["ana"].beat(0), lines[HOSTILE].beat(60)], INTERVAL)
    lists = [await listed(tenant), await listed(tenant, "asc")]
    silent = lines["ana"].first + SILENT + timedelta(seconds=1)
    active = await _active(db, tenant, silent)

    await _settled(db, silent)

    assert await beside(db, tenant) == [HOSTILE]
    assert [await listed(tenant), await listed(tenant, "asc")] == lists
    assert await _active(db, tenant, silent) == active == ["ana", HOSTILE]
    row = await db.row(ROW, tenant.name, "ana")
    assert row is not None
    assert row["last_activity_at"] == lines["ana"].first


async def test_what_was_taken_over_moves_forward_alone(db: Database, service: Service, lines: dict[str, Line]):
    """A beat that comes late, of another session, does not put anything older beside it; a newer one does."""
    ana, sessions = lines["ana"], service.context.sessions
    other = Line(ana.tenant, await ana.tenant.login("ana"), "ana")
    await sessions.flush([ana.beat(300)], INTERVAL)
    await _settled(db, ana.first + timedelta(seconds=300) + SILENT)

    await sessions.flush([other.beat(100)], INTERVAL)
    late = await beside(db, ana.tenant)
    await sessions.flush([ana.beat(400)], INTERVAL)

    assert late == []
    assert await beside(db, ana.tenant) == ["ana"]
    (first, _, _) = await listed(ana.tenant)
    assert first[0] == "ana"
    assert datetime.fromisoformat(first[1]["at"]) == ana.first + timedelta(seconds=400)


async def test_beats_and_taking_over_at_once_lose_nothing(db: Database, service: Service, lines: dict[str, Line]):
    """Whoever beats while everybody is taken over ends with the newest of it, in one place or the other."""
    sessions: SessionStore = service.context.sessions
    for round_ in range(8):
        beats = [line.beat(30 * round_) for line in lines.values()]
        late = beats[0].at + SILENT + timedelta(days=1)
        await asyncio.gather(*(sessions.flush([beat], INTERVAL) for beat in beats), _settled(db, late))

    shown = {each: activity["at"] for each, activity in await listed(lines["ana"].tenant)}
    assert {each: datetime.fromisoformat(at) for each, at in shown.items()} == {
        each: line.first + timedelta(seconds=210) for each, line in lines.items()
    }


async def test_a_merged_member_keeps_the_newer_activity(db: Database, service: Service, lines: dict[str, Line]):
    """Whichever of the two it was, and though neither row said so."""
    tenant, sessions = lines["ana"].tenant, service.context.sessions
    await sessions.flush([lines["ana"].beat(0), lines["ben"].beat(90)], INTERVAL)

    answer = await tenant.call("POST", "/v1/members/ben/merge", {"into": "ana"}, role="supervisor")

    assert answer.status == 200, answer
    card = await tenant.see("/v1/members/ana")
    assert datetime.fromisoformat(card["last_activity"]["at"]) == lines["ben"].first + timedelta(seconds=90)
    assert await beside(db, tenant) == []


async def test_what_the_release_before_writes_meanwhile_is_shown(
    db: Database, service: Service, lines: dict[str, Line]
):
    """It knows the row alone: its later activity stands, though an earlier one lies beside it."""
    ana = lines["ana"]
    await service.context.sessions.flush([ana.beat(0)], INTERVAL)
    later = ana.first + timedelta(seconds=45)

    await db.row(
        "UPDATE member SET last_activity_at = $3, last_activity_kind = 'lesson_open' WHERE tenant = $1 AND id = $2",
        ana.tenant.name,
        "ana",
        later,
    )

    card = await ana.tenant.see("/v1/members/ana")
    assert datetime.fromisoformat(card["last_activity"]["at"]) == later


async def test_what_a_beat_moves_is_in_no_index(db: Database):
    """Of sessions and devices, so that their updates stay in their page; nor is a member's row among what it moves."""
    found = await db.fetch(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename IN ('session', 'device')"
        " AND indexdef ~ 'last_(activity_at|activity_kind|resource|seen_at|ip)'"
    )

    assert list(found) == []


async def _settled(db: Database, now: datetime) -> None:
    """Take over who is silent by `now`, of all tenants there are in this run."""
    while await LatestStore(db).settle(now, 1_000) == 1_000:
        pass


async def _active(db: Database, tenant: Tenant, until: datetime) -> list[str]:
    """Who was active since long ago, in the order that upkeep goes by."""
    await PageStore(db).rebuild(until, most=1_000)
    found = await GatherStore(db).active(tenant.name, (until - timedelta(days=1), ""), until=until, most=10)
    return [member_id for member_id, _, _ in found]
