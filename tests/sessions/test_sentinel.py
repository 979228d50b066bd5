"""Sentinels: whoever is the primary now is found, and a failover costs no more than its own time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from accessguard.errors import GuardError
from accessguard.sessions.live import Change, Live
from accessguard.sessions.spool import SYNC
from tests.service import FIREFOX, Service, Tenant, config, configured
from tests.sessions.own import until
from tests.sessions.topology import Watched, eventually, linked, own_sentinels

T0 = 1_795_000_000_000

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    """Five processes of the test's own."""
    async with own_sentinels(tmp_path) as made:
        yield made


async def beat(live: Live, tenant: str) -> bool:
    """Whether a beat was answered."""
    with contextlib.suppress(GuardError):
        await live.pulse(tenant, "ana", "s", now_ms=T0, known_ms=0)
        return True
    return False


@pytest.mark.parametrize("how", ["killed", "demoted"])
async def test_beats_go_on_after_a_failover(watched, how):
    """In the new primary, with what was known; the old one is let go of, and pushed changes arrive."""
    live, tenant = Live.connect(watched.url, timeout_s=0.5), uuid4().hex
    heard, states = list[Change](), list[bool]()
    listening = asyncio.create_task(live.listen(heard.append, states.append))
    await until(lambda: states[-1:] == [True])
    await live.pulse(tenant, "ana", "s", now_ms=T0, known_ms=0)
    written = await live.on_disk(SYNC, within_ms=5_000)

    if how == "killed":
        await watched.primary.kill()
    else:
        await watched.sentinels[0].admin.execute_command("SENTINEL", "FAILOVER", "live")
    took = await eventually(lambda: moved(live, tenant, watched))
    after = await live.pulse(tenant, "ana", "s", now_ms=T0 + 1, known_ms=0)
    await until(lambda: states.count(True) > 1 and states[-1], within_s=10)
    await live.publish(Change(tenant="t", kind="k"))
    await until(lambda: bool(heard))

    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await live.close()
    assert written is True
    assert took < 15
    assert after.live == {"s": T0}


async def moved(live: Live, tenant: str, watched: Watched) -> bool:
    """Whether beats are answered, by the server that was the replica."""
    return await beat(live, tenant) and (await live._pipe.place("k")).port == watched.replica.port


async def test_what_no_replica_has_is_not_on_disk(watched):
    """A login that waits must outlive the primary."""
    live = Live.connect(watched.url, timeout_s=0.5)
    before = await live.on_disk(SYNC, within_ms=5_000)
    await watched.replica.kill()

    with pytest.raises(GuardError):
        await live.on_disk(SYNC, within_ms=1_000)

    await watched.replica.start()
    await eventually(lambda: linked(watched.replica))
    after = await live.on_disk(SYNC, within_ms=5_000)
    await live.close()
    assert (before, after) == (True, True)


async def test_nobody_who_is_blocked_gets_in_during_a_failover(watched, stores, service: Service):
    """Blocked before it or in the middle of it; whoever is allowed stays allowed, and every check is answered."""
    del service  # it has brought the schema up to date
    said = config(stores.database_url, watched.url)
    async with configured(said) as one, configured(said) as other:
        tenant = one.tenant()
        there = Tenant(other, tenant.name)
        logins = {name: await tenant.login(name, user_agent=FIREFOX) for name in ("ana", "ben", "cleo")}
        first = [await each.check(logins[name], user_agent=FIREFOX) for each in (tenant, there) for name in logins]
        await block(tenant, "ana", logins)
        await watched.primary.kill()
        await block(tenant, "ben", logins)
        await eventually(lambda: denied(there, logins["ben"]))
        second = [await there.check(logins[name], user_agent=FIREFOX) for name in ("ana", "ben", "cleo")]
        await eventually(lambda: answers(other))
        third = [await there.check(logins[name], user_agent=FIREFOX) for name in ("ana", "ben", "cleo")]

    assert {each["decision"] for each in first} == {"allow"}
    assert [each["decision"] for each in second] == ["deny", "deny", "allow"]
    assert [each["decision"] for each in third] == ["deny", "deny", "allow"]


async def block(tenant, name, logins):
    """Block a member's device."""
    answer = await tenant.device(name, logins[name]["device"]["id"], access="blocked")
    assert answer.status == 200, answer.body


async def denied(tenant, login):
    """Whether a check is refused; the block reaches the other worker within 5 s."""
    return (await tenant.check(login, user_agent=FIREFOX))["decision"] == "deny"


async def answers(service: Service) -> bool:
    """Whether a worker has Valkey again, pushed changes included."""
    return (await service.context.ready.parts())["valkey"] == "up"
