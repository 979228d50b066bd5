"""Device tokens through an outage of PostgreSQL: merged, shared, old and blocked ones."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from accessguard.errors import ErrorCode, GuardError
from tests.journeys.outage import Outage, back, out
from tests.journeys.outage import tenant as tenant  # noqa: PLC0414 - a fixture
from tests.journeys.outage import there as there  # noqa: PLC0414 - a fixture
from tests.journeys.test_merged_tokens import LATE_MS, cases, merged, shown, used
from tests.service import Answer, Tenant, items

pytestmark = pytest.mark.chaos


async def devices(tenant: Tenant, member: str = "ana") -> list[dict[str, Any]]:
    """What a supervisor sees of a member."""
    return list(items(await tenant.see(f"/v1/members/{member}/devices")))


async def goes_on(tenant: Tenant, login: Answer, device_id: str, member: str = "ana") -> None:
    """The next logins show the token of the one before, and are that device."""
    for _ in range(2):
        tenant.service.clock.forward(LATE_MS)
        login = await tenant.login(member, device_token=login["device"]["token"])
        assert login["device"]["id"] == device_id


@pytest.mark.parametrize("known", [True, False])
async def test_the_cookie_of_a_merged_device_goes_on_in_an_outage(there: Outage, tenant: Tenant, known: bool):
    """Whether or not the worker knows of the merge; nothing is found, and the browser goes on as one device."""
    old, new = await merged(tenant)
    if known:
        await tenant.check(old)
    await out(there, tenant)
    during = await shown(tenant, new)
    await back(there)

    (device,) = await devices(tenant)
    assert (during.status, during["decision"], device["id"]) == (200, "allow", old["device"]["id"])
    assert device["active_sessions"] == 1
    assert await cases(tenant) == []
    await goes_on(tenant, during, old["device"]["id"])
    assert await cases(tenant) == []


async def test_a_browser_of_two_members_goes_on_after_an_outage(there: Outage, tenant: Tenant):
    """The worker knows neither; its cookie names the device of whoever was last, and leads both to their own."""
    hers = await tenant.login("ana")
    his = await tenant.login("bob", device_token=hers["device"]["token"])
    await out(there, tenant)
    during = await tenant.login("ana", device_token=his["device"]["token"])
    await back(there)

    again = await tenant.login("bob", device_token=during["device"]["token"])
    tenant.service.clock.forward(LATE_MS)
    after = await tenant.login("ana", device_token=again["device"]["token"])

    assert (again["device"]["id"], after["device"]["id"]) == (his["device"]["id"], hers["device"]["id"])
    assert await cases(tenant) == []


@pytest.mark.parametrize("known", [True, False])
async def test_an_old_token_takes_over_no_device_in_an_outage(there: Outage, tenant: Tenant, known: bool):
    """Its owner has gone on since, and goes on afterwards."""
    stolen = await tenant.login()
    owner = await shown(tenant, stolen)
    await used(tenant, owner)
    tenant.service.clock.forward(LATE_MS)
    if known:
        await tenant.check(owner, activity="lesson_open")
    await out(there, tenant)
    thief = await shown(tenant, stolen)
    await back(there)

    found = await devices(tenant)
    assert (thief.status, len(found)) == (200, 2)
    await goes_on(tenant, owner, owner["device"]["id"])


async def test_a_blocked_device_stays_out_by_the_cookie_of_a_merged_one(there: Outage, tenant: Tenant):
    """Also after it has tried with its own."""
    old, new = await merged(tenant)
    await tenant.device("ana", old["device"]["id"], access="blocked")
    await tenant.check(old)
    await out(there, tenant)

    tries = [await shown(tenant, each) for each in (old, new, old, new)]
    await back(there)

    assert [each["reason"]["code"] for each in tries] == ["device_blocked"] * 4


async def test_a_retry_of_one_of_many_at_once_that_was_kept_gets_the_same_token(there, tenant, monkeypatch):
    """PostgreSQL fell silent as it was written; its token is that of the login beside it."""
    first = await tenant.login()
    token, attempt_id = first["device"]["token"], str(uuid4())
    one = await tenant.login(device_token=token)
    desk = there.worker.context.logins._together

    async def silent(_: Any) -> None:
        raise GuardError(ErrorCode.UNAVAILABLE, "lost")

    monkeypatch.setattr(desk, "record", silent)
    two = await tenant.login(device_token=token, attempt_id=attempt_id)
    monkeypatch.undo()
    during = await tenant.login(device_token=token, attempt_id=attempt_id)
    await there.drained()
    after = await tenant.login(device_token=token, attempt_id=attempt_id)

    assert len({each["device"]["token"] for each in (one, two, during, after)}) == 1
    await goes_on(tenant, after, first["device"]["id"])
    assert await cases(tenant) == []
