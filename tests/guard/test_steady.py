"""Sessions whose verdict nothing but a pushed change can alter: their beats need no evaluation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from accessguard.config import Config
from accessguard.rules.needs import STORED
from accessguard.sessions.store import Asked, SessionStore
from tests.service import CHROME, LAPTOP, Answer, Service, Tenant, config, configured, items, running
from tests.sessions.own import own_valkey, until

MINUTE_MS = 60_000
CROWD = 400
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def here(service: Service, database_url: str, redis_url: str) -> AsyncIterator[Tenant]:
    """A new tenant on a worker of its own, for which no time passes but what the test says."""
    async with running(database_url, redis_url) as worker:
        worker.clock.stop()
        await until(lambda: worker.context.checks.memory.trusted)
        yield worker.tenant()


def counts(tenant: Tenant) -> tuple[int, int]:
    """Beats that moved last activity, and evaluations."""
    tally = tenant.service.context.checks.tally
    return tally.moved, tally.evaluated + tally.loaded


async def visit(tenant: Tenant, login: Answer, *, after_ms: int = 0) -> str:
    """One counted interaction; the decision."""
    tenant.service.clock.forward(after_ms)
    decision: str = (await tenant.check(login, activity="lesson_open"))["decision"]
    return decision


async def test_the_beats_of_a_steady_session_are_not_evaluated(here):
    """Each moves last activity, and asks nobody but Valkey."""
    await here.rule("session_limit", "evict_oldest", max=2)
    login = await here.login()
    await visit(here, login)
    before = counts(here)

    decisions = [await visit(here, login, after_ms=30_000) for _ in range(5)]

    assert decisions == ["allow"] * 5
    assert counts(here) == (before[0] + 5, before[1])


async def test_of_a_batch_each_is_answered_as_it_would_be_alone(here):
    """From memory, after a beat, evaluated, unknown: in the order of asking, each counted once."""
    held, due, blocked = await here.login("ana"), await here.login("bo"), await here.login("cy")
    for login in (due, held, blocked):
        await visit(here, login)
    here.service.clock.forward(30_000)
    await visit(here, held)
    await here.device("cy", blocked["device"]["id"], access="blocked")
    asked = [(held["session"]["id"], "allow"), ("no", "deny"), (due["session"]["id"], "allow")]
    asked += [(blocked["session"]["id"], "deny"), (held["session"]["id"], "allow")]
    checks = [
        {"session_id": each, "ip": LAPTOP, "user_agent": CHROME.format(142), "activity": "lesson_open"}
        for each, _ in asked
    ]
    before = counts(here)

    answer = await here.call("POST", "/v1/checks", {"checks": checks})

    answers = [(each["session_id"], each["decision"]) for each in answer["results"]]
    assert answers == asked
    assert counts(here) == (before[0] + 1, before[1] + 2)


async def test_a_session_that_was_silent_for_long_is_looked_at_again(here):
    """After ten minutes without a beat it may have ended by itself, or be another's turn."""
    login = await here.login()
    await visit(here, login)
    before = counts(here)

    await visit(here, login, after_ms=9 * MINUTE_MS)
    soon = counts(here)
    await visit(here, login, after_ms=11 * MINUTE_MS)

    assert soon == (before[0] + 1, before[1])
    assert counts(here) == (before[0] + 2, before[1] + 1)


async def test_where_there_are_more_sessions_than_places_each_beat_is_evaluated(here):
    """Who is in time is then a question of everybody's last activity."""
    await here.rule("session_limit", "log", max=1)
    first, second = await here.login(), await here.login()
    await visit(here, first)
    await visit(here, second)
    before = counts(here)

    await visit(here, second, after_ms=30_000)
    await visit(here, second, after_ms=30_000)

    assert counts(here) == (before[0] + 2, before[1] + 2)


async def test_a_rule_on_addresses_does_not_make_a_session_restless(here):
    """The address is part of the question, so time cannot change what the rule says of it."""
    await here.rule("ip_deny", networks=["198.51.100.0/24"])
    login = await here.login()
    await visit(here, login)
    before = counts(here)

    await visit(here, login, after_ms=30_000)
    elsewhere = await here.check(login, ip="198.51.100.7", activity="lesson_open")

    assert counts(here) == (before[0] + 1, before[1] + 1)
    assert (elsewhere["decision"], elsewhere["reason"]["code"]) == ("deny", "ip_denied")


async def test_a_script_that_valkey_has_forgotten_costs_one_evaluation(here, redis_url):
    """The beat is recorded all the same, and the next one finds the script."""
    login = await here.login()
    await visit(here, login)
    async with Redis.from_url(redis_url) as client:
        await client.script_flush()
    before = counts(here)

    decisions = [await visit(here, login, after_ms=30_000) for _ in range(3)]

    assert decisions == ["allow"] * 3
    assert counts(here) == (before[0] + 3, before[1] + 1)


async def test_so_many_beats_are_looked_at_once(here, monkeypatch):
    """However steady, a verdict is made anew in the end."""
    monkeypatch.setattr("accessguard.guard.evaluate.MOST_BEATS", 10)
    login = await here.login()
    await visit(here, login)
    before = counts(here)

    for _ in range(12):
        await visit(here, login, after_ms=30_000)

    assert counts(here) == (before[0] + 12, before[1] + 1)


async def test_without_valkey_last_activity_moves_once_in_thirty_seconds_all_the_same(
    database_url: str, tmp_path: Path, service: Service
):
    """The worker that has the beat already asks nobody whether it is due."""
    async with own_valkey(tmp_path) as valkey, running(database_url, valkey.url) as worker:
        worker.clock.stop()
        here = worker.tenant()
        login = await here.login()
        await valkey.child.kill()

        decisions = [await visit(here, login, after_ms=each) for each in (0, 1_000, 28_999, 1)]

        rows = await here.see("/v1/members/ana/activity")
    assert decisions == ["allow"] * 4
    assert len([*items(rows)]) == 2


async def test_a_login_that_is_committed_while_its_session_is_looked_for_is_found(here, monkeypatch):
    """The query that came too early is not believed: the session began after it was asked."""
    read, early, go_on = SessionStore.snapshots, asyncio.Event(), asyncio.Event()

    async def held_up(self, *asked, **more):
        found = await read(self, *asked, **more)
        if not early.is_set():
            early.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(SessionStore, "snapshots", held_up)
    checking = asyncio.create_task(here.check("own-session"))
    await early.wait()

    await here.login(session_id="own-session")
    go_on.set()

    assert (await checking)["decision"] == "allow"


async def test_members_that_are_read_together_are_read_as_each_is_alone(here):
    """In the order of asking: open, ended, another tenant's, unknown, asked for twice, and named as nobody would."""
    strange = ["a/b%2F..", "\u202eتجربة\U0001f600", "x" * 128, 'it\'s "$1"']
    logins = [await here.login(each, session_id=each) for each in strange]
    await here.call("POST", f"/v1/sessions/{strange[2]}/end", {"reason": "logout"})
    elsewhere = here.service.tenant()
    await elsewhere.login(session_id="theirs")
    store = here.service.context.sessions
    asked = [(here.name, each) for each in (*strange, "no", "theirs", strange[0])] + [(elsewhere.name, "theirs")]

    together = await store.snapshots([Asked(*each) for each in asked], timeout_s=5)
    wide = await store.snapshots([Asked(*each, STORED, LONG_AGO) for each in asked], timeout_s=5)

    assert [each.status for each in logins] == [200] * 4
    assert together == [await store.snapshot(*each, timeout_s=5) for each in asked]
    assert wide == [await store.snapshot(*each, timeout_s=5, needs=STORED, since=LONG_AGO) for each in asked]
    assert [each is None or len(each.past.networks) for each in wide[:4]] == [1] * 4
    assert [each is None for each in together] == [False, False, False, False, True, True, False, False]


async def test_the_misses_of_a_batch_share_their_statements(here, monkeypatch):
    """However many they are, no more are under way than places; each is answered by itself."""
    read, sizes = SessionStore.snapshots, list[int]()

    async def counted(self, asked, **more):
        sizes.append(len(asked))
        return await read(self, asked, **more)

    monkeypatch.setattr(SessionStore, "snapshots", counted)
    logins = [await here.login(f"m{number}") for number in range(40)]
    asked = [each["session"]["id"] for each in logins] + ["no"]
    checks = [{"session_id": each, "ip": LAPTOP, "user_agent": CHROME.format(142)} for each in asked]

    answer = await here.call("POST", "/v1/checks", {"checks": checks})

    assert [each["decision"] for each in answer["results"]] == ["allow"] * 40 + ["deny"]
    assert sum(sizes) == 41
    assert len(sizes) <= 5


def hasty(database_url: str, redis_url: str) -> Config:
    """A worker that waits for an answer less long than others do in tests, and ten times as long as in earnest."""
    said = config(database_url, redis_url)
    return msgspec.structs.replace(said, server=msgspec.structs.replace(said.server, check_deadline_ms=1_000))


@pytest.mark.parametrize("fast", [True, False], ids=["fast lane", "other lane"])
async def test_a_check_does_not_wait_for_a_beat_that_is_not_answered(database_url, tmp_path, service, fast):
    """Given up long before the connection is, it is decided without Valkey, alone and in a batch; nothing is counted twice."""
    async with own_valkey(tmp_path) as valkey, configured(hasty(database_url, valkey.url)) as worker:
        worker.clock.stop()
        here = Tenant(worker if fast else replace(worker, url=worker.plain_url), worker.tenant().name)
        logins = [await here.login(member) for member in ("ana", "bo")]
        for login in logins:
            await visit(here, login)
        worker.clock.forward(30_000)
        worker.context.ready._live._pipe._timeout_s = 600
        valkey.freeze()
        async with asyncio.timeout(60):
            alone = await visit(here, logins[0])
            batch = [
                {"session_id": each["session"]["id"], "ip": LAPTOP, "user_agent": CHROME.format(142)} for each in logins
            ]
            both = await here.call(
                "POST", "/v1/checks", {"checks": [each | {"activity": "lesson_open"} for each in batch]}
            )
        valkey.thaw()
        await worker.context.activity.flush()
        rows = [await here.see(f"/v1/members/{member}/activity") for member in ("ana", "bo")]

    assert alone == "allow"
    assert [each["decision"] for each in both["results"]] == ["allow", "allow"]
    assert [len([*items(each)]) for each in rows] == [2, 2]


async def test_a_crowd_that_a_worker_does_not_know_is_read_together(here):
    """A batch of four hundred under a rule on networks: more than may wait for connections of their own."""
    await here.rule("network_limit", "deny_new", max=1, window_s=600)
    logins = [await here.login(f"member-{number}") for number in range(CROWD)]
    here.service.context.checks.memory.drop_all()
    batch = [{"session_id": each["session"]["id"], "ip": LAPTOP, "user_agent": CHROME.format(142)} for each in logins]

    answer = await here.call("POST", "/v1/checks", {"checks": batch})

    decided = [(each["decision"], each["degraded"]) for each in answer["results"]]
    assert decided == [("allow", False)] * CROWD
