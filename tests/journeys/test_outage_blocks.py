"""With PostgreSQL out, who was blocked stays out, and what a tenant chose for those it knows nothing of is done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest

from accessguard.errors import GuardError
from accessguard.guard.crowds import LINGER_S
from tests.journeys.outage import Outage, back, known, out, until
from tests.journeys.outage import tenant as tenant  # noqa: PLC0414 - a fixture
from tests.journeys.outage import there as there  # noqa: PLC0414 - a fixture
from tests.proxies.test_auth import COOKIE, ask, cookies
from tests.service import FIREFOX, Tenant, items, running, token

pytestmark = pytest.mark.chaos


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


async def test_proxies_go_on_in_an_outage_with_what_is_known(there, tenant):
    """A session and a host that are known pass; nobody is told to log in again, where a tenant chose closed: 503, come back."""
    host = f"{tenant.name}.example"
    said = {"failure_mode": "closed", "hosts": [{"host": host, "primary": True}]}
    saved = await tenant.call("PUT", "/v1/settings", said, role="administrator")
    login = await tenant.login("ana")
    await there.worker.context.hosts.read()
    shown: dict[str, Any] = {"AccessGuard_Token": token("*", "platform"), "X_Forwarded_Host": host}
    before = await ask(tenant, Cookie=cookies(login), **shown)
    strange = there.worker.context.session_tokens.issue(tenant.name, "no-such-session")
    await out(there, tenant)
    there.worker.context.hosts.expire()

    known_ = [await ask(tenant, fast=fast, Cookie=cookies(login), **shown) for fast in (True, False)]
    unknown = await ask(tenant, Cookie=f"{COOKIE}={strange}", Accept="text/html", **shown)
    nobody = await ask(tenant, Cookie=None, **shown)
    await back(there)

    assert saved.status == 200, saved.body
    assert [each.status for each in (before, *known_)] == [204] * 3
    assert (unknown.status, unknown.headers["AccessGuard-Reason"]) == (503, "undecided")
    assert "Retry-After" in unknown.headers
    assert "/restricted?t=" in unknown.headers["Location"], "it is explained, and nobody is sent to log in"
    assert (nobody.status, nobody.headers["AccessGuard-Reason"]) == (401, "no_session")
