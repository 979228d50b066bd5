"""With PostgreSQL out, logins are decided on what is known, wait in Valkey, and are drained exactly once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from accessguard.errors import ErrorCode, GuardError
from accessguard.guard import changes
from accessguard.guard.crowds import LINGER_S
from accessguard.metrics import POOL_REFUSED
from tests.journeys.outage import Outage, outage, until
from tests.service import CHROME, FIREFOX, Tenant, items, running

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
async def there(tmp_path_factory: Any) -> AsyncIterator[Outage]:
    """Stores and a worker for this module."""
    async with outage(tmp_path_factory.mktemp("outage")) as found:
        yield found


@pytest.fixture
async def tenant(there: Outage) -> AsyncIterator[Tenant]:
    """A tenant whose rules the worker knows; both stores are well again at the end."""
    found = there.worker.tenant()
    await found.login("zoe")
    yield found
    await there.thaw_valkey()
    if there.stores.postgres is not None and not there.stores.postgres.running:
        await there.start_postgres()
    await there.thaw_postgres()
    await there.drained()


async def known(there: Outage, tenant: Tenant) -> None:
    """The worker holds the tenant's rules, and has heard of every change of them."""
    await asyncio.sleep(0.3)
    await tenant.check("nobody")
    assert there.worker.context.book.held(tenant.name) is not None


async def out(there: Outage, tenant: Tenant) -> None:
    """PostgreSQL is gone, and the worker has noticed."""
    await known(there, tenant)
    await there.kill_postgres()
    breaker = there.worker.context.ready._db.breaker
    while not breaker.open:
        await tenant.check(str(uuid4()))


async def back(there: Outage) -> None:
    """PostgreSQL is there again, and has what waited."""
    await there.start_postgres()
    await there.drained()


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


async def test_a_known_block_holds_in_an_outage(there, tenant):
    """At a check and at a login with the device's token."""
    login = await tenant.login("ana")
    await tenant.check(login)
    await tenant.device("ana", login["device"]["id"], access="blocked")
    await tenant.check(login)
    await out(there, tenant)

    check = await tenant.check(login)
    again = await tenant.login("ana", device_token=login["device"]["token"])
    await back(there)

    assert check["reason"]["code"] == "device_blocked"
    assert (again["decision"], again["reason"]["code"], again["session"]) == ("deny", "device_blocked", None)


@contextlib.asynccontextmanager
async def ignorant(there: Outage, tenant: Tenant) -> AsyncIterator[tuple[Tenant, Callable[[], None]]]:
    """Another worker that knows the tenant's rules; and what makes it forget whatever it was told."""
    async with running(there.stores.database_url, there.stores.redis_url) as second:
        elsewhere = Tenant(second, tenant.name)
        await elsewhere.check("nobody")
        memory = second.context.checks.memory

        def forget() -> None:
            memory.drop_all()
            memory.barred._blocks.clear()
            memory.barred._ends.clear()

        yield elsewhere, forget
        await there.drained(second)


async def test_an_operators_bar_binds_a_worker_that_was_never_told_of_it(there, tenant):
    """A blocked device and an ended session, with PostgreSQL out; after a flush of Valkey too, as somebody still knows.

    One that has just started reads from PostgreSQL what is blocked.
    """
    before, replaced, lifted = [await tenant.login(member) for member in ("ana", "ben", "cleo")]
    blocked = await tenant.login("ana", device_token=before["device"]["token"])
    await tenant.login("ben", device_token=replaced["device"]["token"])
    await tenant.device("ana", blocked["device"]["id"], access="blocked")
    await tenant.call("POST", f"/v1/sessions/{replaced['session']['id']}/end", {}, role="supervisor")
    for access in ("blocked", "default"):
        await tenant.device("cleo", lifted["device"]["id"], access=access)
    async with ignorant(there, tenant) as (elsewhere, forget):
        bars = elsewhere.service.context.changes.bars
        await until(lambda: bars.here(tenant.name, blocked["session"]["id"]) is not None)
        await out(there, tenant)
        forget()
        codes = [(await elsewhere.check(each))["reason"] for each in (blocked, before, replaced)]
        again = await elsewhere.login("ana", device_token=blocked["device"]["token"])
        free = await elsewhere.check(lifted)
        await there.worker.context.ready._live.ask("FLUSHALL")
        with contextlib.suppress(GuardError):
            await there.worker.context.changes.bars.look()
        forget()
        codes += [(await elsewhere.check(each))["reason"] for each in (blocked, before, replaced)]
        await back(there)

    assert [code["code"] for code in codes] == ["device_blocked", "device_blocked", "session_ended"] * 2
    assert (again["decision"], again["reason"]["code"], again["session"]) == ("deny", "device_blocked", None)
    assert free["decision"] == "allow"


async def test_a_device_that_is_blocked_while_its_login_waits_is_kept_out(there, tenant, monkeypatch):
    """By a worker with PostgreSQL and by those without, though the session is in no list that the block could name; all hear of it with the drain."""
    first = await tenant.login("ana")
    async with ignorant(there, tenant) as (elsewhere, forget):
        await out(there, tenant)
        waiting = await tenant.login("ana", device_token=first["device"]["token"])
        monkeypatch.setattr("accessguard.guard.spooling.MINE", "SELECT false AND pg_try_advisory_xact_lock($1)")
        await there.start_postgres()
        await until(lambda: not there.worker.context.ready._db.breaker.open)
        block = await tenant.device("ana", first["device"]["id"], access="blocked")
        with_postgres = await tenant.check(waiting)
        await out(there, tenant)
        forget()
        without = [await tenant.check(waiting), await elsewhere.check(waiting)]
        forget()
        monkeypatch.undo()
        await back(there)
        bars, session_id = elsewhere.service.context.changes.bars, waiting["session"]["id"]
        await until(lambda: bars.here(tenant.name, session_id) is not None)
        after = await tenant.check(waiting)

    assert (waiting["decision"], block.status) == ("allow", 200)
    assert [each["reason"] and each["reason"]["code"] for each in (with_postgres, *without, after)] == [
        "device_blocked"
    ] * 4


async def test_a_known_device_stays_the_same_through_an_outage(there, tenant):
    """A token whose device this worker has not seen is taken at its word; no second device comes of it."""
    login = await tenant.login("ana", user_agent=FIREFOX)
    await out(there, tenant)
    again = await tenant.login("ana", user_agent=FIREFOX, device_token=login["device"]["token"])
    await back(there)

    (device,) = items(await tenant.see("/v1/members/ana/devices"))
    old = await tenant.check(login)
    assert device["id"] == again["device"]["id"] == login["device"]["id"]
    assert again["device"]["new"] is False
    assert old["reason"]["code"] == "session_ended"


async def test_first_logins_at_once_are_one_device_in_an_outage_too(there, tenant):
    """Of one browser, at two workers: one device, one token, and sessions that go on, afterwards as well. A window opened later is another one."""
    async with running(there.stores.database_url, there.stores.redis_url) as second:
        elsewhere = Tenant(second, tenant.name)
        await elsewhere.check("nobody")
        await out(there, tenant)
        while not second.context.ready._db.breaker.open:
            await elsewhere.check(str(uuid4()))
        *burst, other = await asyncio.gather(
            *(each.login("ana") for each in (tenant, elsewhere) * 3), tenant.login("ana", user_agent=FIREFOX)
        )
        await asyncio.sleep(LINGER_S)
        later = await tenant.login("ana")
        during = [await tenant.check(each) for each in burst]
        await there.start_postgres()
        await there.drained(there.worker, second)

    devices = list(items(await tenant.see("/v1/members/ana/devices")))
    made = burst[0]["device"]["id"]
    assert {each["device"]["id"] for each in burst} == {made}
    assert len({each["device"]["token"] for each in burst}) == 1
    assert {each["id"] for each in devices} == {made, other["device"]["id"], later["device"]["id"]}
    assert len(devices) == 3
    assert {each["decision"] for each in during} == {"allow"}
    assert {(await tenant.check(each))["decision"] for each in burst} == {"allow"}
    again = await tenant.login("ana", device_token=burst[-1]["device"]["token"])
    assert again["device"]["id"] == made


async def test_a_tenant_that_chose_closed_lets_in_nobody_it_knows_nothing_of(there, tenant):
    """Neither at a login that a rule would have to count, nor at a check."""
    await tenant.rule("session_limit", "deny_new", max=1)
    await tenant.call("PUT", "/v1/settings", {"failure_mode": "closed"}, role="administrator")
    await tenant.login("zoe")
    await out(there, tenant)

    login = await tenant.login("ana")
    check = await tenant.check("no-such-session")
    await back(there)

    assert (login["decision"], login["reason"]["code"]) == ("deny", "undecided")
    assert (check["decision"], check["reason"]["code"]) == ("deny", "undecided")
    (line,) = items(await tenant.see("/v1/members/ana/logins"))
    assert (line["decision"], line["code"]) == ("deny", "undecided")


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
    await _refuse_attempts(there, "ana", "P0001")
    try:
        await out(there, tenant)
        await tenant.login("ana")
        ben = await tenant.login("ben")
        await there.start_postgres()
        await until(lambda: there.worker.context.spooling.pending == 0)
    finally:
        await _refuse_attempts(there, "", "P0001")

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
    await _refuse_attempts(there, "%", "P0001")
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
        await _refuse_attempts(there, "", "P0001")
    await there.drained()

    assert await spooling._spool.dead() == before
    for member in ("ana", "ben"):
        assert len(list(items(await tenant.see(f"/v1/members/{member}/logins")))) == 1


@pytest.mark.parametrize("state", ["53100", "53200", "58030"], ids=["disk full", "out of memory", "i/o error"])
async def test_a_postgres_that_has_no_room_is_read_and_logins_wait(there, tenant, state):
    """Nothing is lost and nothing crashes; operators read, and are told to come back when they write."""
    login = await tenant.login("ana")
    await _refuse_attempts(there, "%", state)
    try:
        page = await tenant.see("/v1/members")
        check = await tenant.check(login)
        waiting = await tenant.login("ben")
        ready = await tenant.call("GET", "/readyz")
    finally:
        await _refuse_attempts(there, "", state)
    await there.drained()

    assert (page.status, check["decision"], ready.status) == (200, "allow", 200)
    assert (waiting.status, waiting["degraded"]) == (200, True)
    assert there.worker.context.ready._db.breaker.open is False
    assert len(list(items(await tenant.see("/v1/members/ben/logins")))) == 1


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


async def test_an_exhausted_pool_lets_checks_go_on_and_logins_wait(there, tenant):
    """Every connection is in use: a check is answered in its deadline, a login is kept, an operator is told to come back; nothing is lost."""
    db, login = there.worker.context.ready._db, await tenant.login("ana")
    await tenant.check(login)
    waits = POOL_REFUSED.labels("wait")._value.get()
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


async def test_a_block_holds_when_valkey_comes_back_before_postgres(there, tenant):
    """What was held is forgotten only once it can be read anew."""
    changes = there.worker.context.changes
    login = await tenant.login("ana")
    await tenant.device("ana", login["device"]["id"], access="blocked")
    await tenant.check(login)
    await out(there, tenant)
    await there.kill_valkey()
    await until(lambda: not changes._memory.trusted)
    await there.stores.start_valkey()
    await until(lambda: changes._back)

    during = await tenant.check(login)
    await back(there)
    await until(lambda: changes._memory.trusted)

    assert during["reason"]["code"] == "device_blocked"
    assert (await tenant.check(login))["reason"]["code"] == "device_blocked"


async def _refuse_attempts(there: Outage, member: str, state: str) -> None:
    """Have PostgreSQL answer login attempts of such a member (LIKE; "": of nobody) with an error of this class."""
    connection = await asyncpg.connect(there.stores.database_url)
    try:
        await connection.execute(
            f"""
            CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF NEW.member_id LIKE '{member}' THEN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END IF;
                RETURN NEW;
            END $$;
            CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON login_attempt FOR EACH ROW EXECUTE FUNCTION refuse();
            """
        )
    finally:
        await connection.close()


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


async def test_a_block_holds_though_nobody_asked_between_it_and_the_outage(there, tenant):
    """A worker that was told of a block has forgotten the member, but not the block; lifted, it is forgotten too."""
    kept, freed = await tenant.login("ana"), await tenant.login("ben")
    await known(there, tenant)
    for member, login in (("ana", kept), ("ben", freed)):
        await tenant.check(login)
        await tenant.device(member, login["device"]["id"], access="blocked")
    await tenant.device("ben", freed["device"]["id"], access="default")

    await there.kill_postgres()
    refused, undecided = await tenant.check(kept), await tenant.check(freed)

    assert (refused["decision"], refused["reason"]["code"], refused["degraded"]) == ("deny", "device_blocked", True)
    assert (undecided["decision"], undecided["degraded"]) == ("allow", True)


async def test_rules_that_changed_just_before_an_outage_leave_the_ones_before_them(there, tenant):
    """A worker that was told of the change, and cannot read it, goes on with what it knew, and says so."""
    await tenant.rule("ip_deny", networks=["192.0.2.0/24"])
    login = await tenant.login("ana")
    await known(there, tenant)
    await tenant.check(login)
    there.worker.context.book.drop(tenant.name)

    await there.kill_postgres()
    allowed, refused = await tenant.check(login), await tenant.check(login, ip="192.0.2.1")
    again = await tenant.login("ana", device_token=login["device"]["token"])

    assert (allowed.status, allowed["decision"], allowed["degraded"]) == (200, "allow", True)
    assert (refused["decision"], refused["reason"]["code"], refused["degraded"]) == ("deny", "ip_denied", True)
    assert (again.status, again["decision"], again["degraded"]) == (200, "allow", True)
