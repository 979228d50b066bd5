"""Both lanes, a session that both know, and who asks them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.api.asking import Asker, asking
from tests.api.lanes import LAST, Known, Lanes, lanes
from tests.service import Service, Tenant, running
from tests.sessions.own import until


@pytest.fixture(scope="module")
async def both(service: Service) -> AsyncIterator[Lanes]:
    """Both lanes in front of the run's worker."""
    while not service.context.checks.memory.trusted:
        await asyncio.sleep(0.01)
    async with lanes(service.context) as found:
        yield found


@pytest.fixture
async def known(tenant: Tenant, both: Lanes) -> Known:
    """A fresh one."""
    login = await tenant.login()
    found = Known(tenant, login["session"]["id"])
    primed = await both.talk(both.plain, found.check() + LAST)
    assert primed.statuses == [200, 200]
    return found


@pytest.fixture
async def asker(tenant: Tenant) -> AsyncIterator[Asker]:
    """An asker of a fresh tenant."""
    await tenant.login("zoe")
    async with asking(tenant) as found:
        yield found


@pytest.fixture(scope="module")
async def second(service: Service, database_url: str, redis_url: str) -> AsyncIterator[Service]:
    """Another worker."""
    async with running(database_url, redis_url) as worker:
        await until(lambda: worker.context.checks.memory.trusted)
        yield worker
