"""What happens reaches whoever follows it: all of it, in order, once, and nothing that never took effect."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from accessguard.database import Database
from accessguard.events.model import Event, Position
from accessguard.events.outbox import OutboxStore
from accessguard.events.stream import RING, Feeds
from tests.service import Tenant, token

STRANGE = "مرحبا/🙂%2F:" + "x" * 110


class Follower:
    """Somebody who reads a stream, frame by frame."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.last = ""

    async def frame(self) -> dict[str, str]:
        """The next frame, whatever it is."""
        lines = []
        async with asyncio.timeout(20):
            while (line := (await self.response.content.readline()).decode().rstrip("\n")) != "":
                lines.append(line)
            if self.response.content.at_eof() and not lines:
                raise EOFError
        found = dict(each.split(": ", 1) for each in lines if not each.startswith(":"))
        self.last = found.get("id", self.last)
        return found

    async def next(self, kind: str) -> dict[str, Any]:
        """The data of the next event of this kind; others are passed by."""
        while True:
            found = await self.frame()
            if found.get("event") == kind:
                return dict(json.loads(found["data"]))

    async def kinds(self, most: int) -> list[str]:
        """The kinds of the next events."""
        found: list[str] = []
        while len(found) < most:
            frame = await self.frame()
            found += [frame["event"]] if "event" in frame else []
        return found


@contextlib.asynccontextmanager
async def following(tenant: Tenant, last: str | None = None) -> AsyncIterator[Follower]:
    """Follow a tenant's events from its first frame on."""
    headers = {"Authorization": f"Bearer {token(tenant.name, 'platform')}"} | ({"Last-Event-ID": last} if last else {})
    async with tenant.service.http.get(tenant.service.url + "/v1/stream", headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        follower = Follower(response)
        assert "retry" in await follower.frame()
        yield follower


@pytest.fixture
async def db(tenant: Tenant, database_url: str) -> AsyncIterator[Database]:
    """Connections of this test."""
    made = await Database.connect(database_url, size=3)
    yield made
    await made.close()


async def test_a_follower_hears_all_that_happens_to_a_member(tenant: Tenant):
    """A new device, its block, an ended session, a case, switched-off checks, a rule: each by its name, about whom it is."""
    await tenant.see("/v1/members")  # the tenant begins to exist
    async with following(tenant) as follower:
        login = await tenant.login(STRANGE)
        new = await follower.next("device_changed")
        await tenant.device(quote(STRANGE, safe=""), login["device"]["id"], access="blocked")
        blocked = await follower.next("device_changed")
        await tenant.check(login)
        case = await follower.next("violation")
        await tenant.call("POST", f"/v1/sessions/{login['session']['id']}/end", {"reason": "logout"})
        ended = await follower.next("session_ended")
        path = f"/v1/members/{quote(STRANGE, safe='')}"
        await tenant.call("PATCH", path, {"checks_enabled": False}, role="supervisor")
        member = await follower.next("member_changed")
        await tenant.rule("session_limit", "deny_new", max=1)
        await follower.next("policy_changed")

    assert {each["member_id"] for each in (new, blocked, case, ended, member)} == {STRANGE}
    assert (new["change"], blocked["change"]) == ("new", "blocked")
    assert new["device_id"] == blocked["device_id"] == login["device"]["id"]
    assert (case["code"], case["effect"]) == ("device_blocked", "denied")
    assert (ended["session_id"], ended["reason"]) == (login["session"]["id"], "logout")


async def test_who_was_away_goes_on_exactly_where_it_was(tenant: Tenant):
    """With Last-Event-ID every event comes once, in order; another tenant's are never seen."""
    other = tenant.service.tenant()
    async with following(tenant) as follower:
        await tenant.login("ana")
        await follower.next("device_changed")
        last = follower.last
    for each in ("bo", "cy", "di"):
        await tenant.login(each)
        await other.login(each)

    async with following(tenant, last) as follower:
        first = [await follower.next("device_changed") for _ in range(2)]
    async with following(tenant, follower.last) as follower:
        rest = await follower.next("device_changed")
        await tenant.login("ed")
        live = await follower.next("device_changed")

    assert [each["member_id"] for each in (*first, rest, live)] == ["bo", "cy", "di", "ed"]


async def test_who_was_away_too_long_is_told_to_drop_everything(tenant: Tenant, db: Database):
    """After what was taken away, and for a place of no database of ours, the first event is `reset`; then it goes on."""
    async with following(tenant) as follower:
        await tenant.login("ana")
        await follower.next("device_changed")
    await db.row("UPDATE event SET at = at - interval '2 days' WHERE tenant = $1", tenant.name)
    begin = str(Position(xact=1).text)
    async with following(tenant, begin) as kept:
        before = await kept.kinds(1)
    while await OutboxStore(db).expire((await db.value("SELECT now()")), 1000) == 1000:
        pass

    async with (
        following(tenant, begin) as late,
        following(tenant, "99999999999-1") as future,
        following(tenant, "x") as odd,
    ):
        found = [await each.kinds(1) for each in (late, future, odd)]
        await tenant.login("bo")
        after = await late.next("device_changed")

    assert before == ["device_changed"]
    assert found == [["reset"]] * 3
    assert after["member_id"] == "bo"


async def test_nothing_is_passed_by_and_nothing_is_told_of_what_was_undone(tenant: Tenant, db: Database):
    """A transaction that began first and commits last is not lost to who has read on; one that is rolled back is not told."""
    await tenant.login("ana")
    store = OutboxStore(db)
    place = await store.now()
    ended = "UPDATE session SET ended_at = now(), end_reason = $2 WHERE tenant = $1 AND member_id = 'ana'"
    async with db.transaction() as late:
        await late.row("UPDATE tenant SET generation = generation + 1 WHERE id = $1", tenant.name)
        with contextlib.suppress(ZeroDivisionError):
            async with db.transaction() as undone:
                await undone.row(ended, tenant.name, "undone")
                raise ZeroDivisionError
        await db.row(ended, tenant.name, "early")
        meanwhile = await store.after({tenant.name: place})
    found = await store.after({tenant.name: place})

    assert not meanwhile
    assert [each.kind for each in found] == ["policy_changed", "session_ended"]
    assert found[1].body["reason"] == "early"


async def test_without_valkey_events_still_come(tenant: Tenant, db: Database):
    """A change that nobody announced is found by the look at the outbox."""
    await tenant.login("ana")
    async with following(tenant) as follower:
        await db.row("UPDATE tenant SET generation = generation + 1 WHERE id = $1", tenant.name)
        kinds = await follower.kinds(1)

    assert kinds == ["policy_changed"]


async def test_a_reader_that_falls_behind_costs_nothing_and_misses_nothing(tenant: Tenant, db: Database):
    """What a worker holds is bounded; who is slower reads the rest from PostgreSQL."""
    await tenant.login("ana")
    feeds = Feeds(OutboxStore(db))
    running = asyncio.create_task(feeds.run())
    many = "INSERT INTO event (tenant, kind, body) SELECT $1, 'policy_changed', jsonb_build_object('n', n) FROM generate_series(1, $2::int) n"
    async with feeds.follow(tenant.name) as slow, feeds.follow(tenant.name) as quick:
        await db.row(many, tenant.name, 3 * RING)
        feeds.wake(tenant.name)
        read: list[Event] = []
        while len(read) < 3 * RING:
            read += await quick.next(20)
        held = len(feeds._feeds[tenant.name].ring)
        late: list[Event] = []
        while len(late) < 3 * RING:
            late += await slow.next(20)
    running.cancel()

    assert [each.body["n"] for each in late] == [each.body["n"] for each in read] == list(range(1, 3 * RING + 1))
    assert held == RING
    assert not feeds._feeds


async def test_a_stop_sends_readers_elsewhere(tenant: Tenant, db: Database):
    """Each is told when to come again, and the stream ends; who comes now is refused."""
    feeds = tenant.service.context.feeds
    async with following(tenant) as follower:
        feeds.stop()
        try:
            goodbye = await follower.frame()
            with pytest.raises(EOFError):
                await follower.frame()
            refused = await tenant.call("GET", "/v1/stream")
        finally:
            feeds.stopping = False

    assert 500 <= int(goodbye["retry"]) <= 3_000
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
