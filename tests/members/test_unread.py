"""Who has cases that a reader has not read: told from a table of its own, and always as the cases and marks themselves say."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from accessguard.members.directory import CAUGHT_UP
from accessguard.members.retention import RetentionStore
from accessguard.members.sheets import SheetStore
from tests.service import Answer, Service, Tenant, items

ONE, OTHER, NEW = "kim", "lou", "mia"
READERS = (ONE, OTHER, NEW)
HOSTILE = ("anna/1%2F?", "\u202eאבג", "🦊", "x" * 128, "o'hara")
"""Ids with slashes and percent signs, from right to left, of one character, of all that are allowed."""
TRUTH = """
    SELECT v.member_id, count(*) AS unread FROM violation v
     WHERE v.tenant = $1 AND v.effect <> 'exempt'
       AND NOT EXISTS (SELECT FROM read_mark r WHERE r.tenant = $1 AND r.violation_id = v.id AND r.reader = $2 AND r.hits >= v.hits)
     GROUP BY v.member_id
"""
AGED = """
    UPDATE violation SET first_at = first_at - interval '9 years', last_at = last_at - interval '9 years'
     WHERE tenant = $1 AND member_id = 'new'
"""
NOTE = """
    INSERT INTO unread_moved (tenant, member_id) VALUES ($1, 'ana')
        ON CONFLICT (tenant, member_id, reader) DO UPDATE SET moved = excluded.moved
"""
TABLES = ("unread_sheet", "unread_moved", "unread_member")
LATER = "UPDATE <table> SET <column> = <column> - interval '40 days' WHERE tenant = $1"
LEFT = "SELECT count(*) FROM <table> WHERE tenant = $1"


@pytest.fixture
async def denied(tenant: Tenant) -> Tenant:
    """A tenant that refuses 192.0.2.0/24."""
    await tenant.rule("ip_deny", networks=["192.0.2.0/24"])
    return tenant


async def refuse(tenant: Tenant, *members: str) -> None:
    """A hit for each: a login from where none may come."""
    for member in members:
        assert (await tenant.login(member, ip="192.0.2.1"))["decision"] == "deny"


async def mark(tenant: Tenant, reader: str = ONE, **selected: Any) -> Answer:
    """Mark cases read, or unread."""
    asked = {"read": True} | selected
    return await tenant.call("POST", "/v1/violations/mark", asked, role="supervisor", subject=reader)


async def told(tenant: Tenant, reader: str, query: str) -> dict[str, int]:
    """Who is listed, over pages of two, with how many unread cases."""
    found: dict[str, int] = {}
    cursor = ""
    while True:
        answer = await tenant.see(f"/v1/members?limit=2&{query}{cursor}", subject=reader)
        assert answer.status == 200, answer.body
        page = {each["member_id"]: each["unread_violations"] for each in items(answer)}
        assert not page.keys() & found.keys()
        found |= page
        if not answer["next_cursor"]:
            return found
        cursor = f"&cursor={quote(answer['next_cursor'])}"


async def agrees(tenant: Tenant) -> None:
    """Every reader is told what the cases and its marks say, whatever the order."""
    db = tenant.service.context.members._db
    for reader in READERS:
        truth = {row["member_id"]: row["unread"] for row in await db.fetch(TRUTH, tenant.name, reader)}
        ranked = await told(tenant, reader, "sort=unread")
        assert await told(tenant, reader, "unread=true") == truth
        assert await told(tenant, reader, "unread=true&sort=unread&order=asc") == truth
        assert {each: number for each, number in ranked.items() if number} == truth
        assert list(ranked.values()) == sorted(ranked.values(), reverse=True)


async def test_whatever_happens_to_cases_and_marks_every_reader_is_told_the_truth(denied: Tenant, service: Service):
    """Cases that begin and happen again, marks set and taken off, members merged and erased, cases that grow too old."""
    await refuse(denied, *HOSTILE)
    await agrees(denied)

    await mark(denied, member_id=HOSTILE[0])
    await mark(denied, OTHER, up_to="2100-01-01T00:00:00Z")
    await agrees(denied)

    await refuse(denied, HOSTILE[0], HOSTILE[1], "new")
    await denied.login("quiet")
    await agrees(denied)

    await mark(denied, OTHER, read=False, member_id=HOSTILE[2])
    await mark(denied, member_id=HOSTILE[1])
    await agrees(denied)

    path = "/v1/members/" + quote(HOSTILE[1], safe="")
    merged = await denied.call("POST", f"{path}/merge", {"into": "quiet"}, role="supervisor")
    gone = [
        await denied.call("DELETE", f"/v1/members/{quote(HOSTILE[number], safe='')}?mode={mode}", role="administrator")
        for number, mode in ((2, "erase"), (3, "anonymise"))
    ]
    assert {each.status for each in (merged, *gone)} <= {200, 202}, [each.body for each in (merged, *gone)]
    await agrees(denied)

    db = service.context.members._db
    await db.row(AGED, denied.name)
    await RetentionStore(db).expire("violation", datetime.now(UTC), 1_000, default_days=365)
    await agrees(denied)


async def test_what_was_not_committed_yet_when_a_reader_looked_is_told_at_the_next_look(
    denied: Tenant, service: Service
):
    """However long its transaction took, and whatever others have counted since."""
    db = service.context.members._db
    await refuse(denied, "ana", "ben")
    await told(denied, ONE, "unread=true")

    async with db.transaction() as tx:
        await tx.row("UPDATE violation SET effect = 'exempt' WHERE tenant = $1 AND member_id = 'ana'", denied.name)
        await tx.row(NOTE, denied.name)
        await refuse(denied, "cleo")
        before = await told(denied, ONE, "unread=true")
    after = await told(denied, ONE, "unread=true")

    assert before == {"ana": 1, "ben": 1, "cleo": 1}
    assert after == {"ben": 1, "cleo": 1}


async def test_readers_who_look_while_cases_happen_end_with_the_truth(denied: Tenant, service: Service):
    """Counted at once by several, one by one and all anew, none is lost and nobody waits for ever."""
    db = service.context.members._db
    await refuse(denied, *HOSTILE)

    async def look(number: int) -> None:
        await db.value(CAUGHT_UP, denied.name, READERS[number % 3], number % 4)
        await mark(denied, READERS[number % 2], member_id=HOSTILE[number % 5], read=number % 3 > 0)

    await asyncio.gather(
        *(look(number) for number in range(24)), refuse(denied, *HOSTILE, *HOSTILE), refuse(denied, "new", *HOSTILE)
    )

    await agrees(denied)


async def test_what_nobody_looks_at_any_more_goes_in_portions_and_is_made_again(denied: Tenant, service: Service):
    """Upkeep takes sheets that were left for a month, and their notes; who looks again is told the truth."""
    db = service.context.members._db
    await refuse(denied, *HOSTILE)
    await agrees(denied)
    for table, column in (("unread_sheet", "caught_at"), ("unread_moved", "at")):
        await db.row(LATER.replace("<table>", table).replace("<column>", column), denied.name)

    while await SheetStore(db).expire(datetime.now(UTC), 2) >= 2:
        pass

    left = [await db.value(LEFT.replace("<table>", table), denied.name) for table in TABLES]
    await agrees(denied)
    assert left == [0, 0, 0]
