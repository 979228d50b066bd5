"""PostgreSQL out, and Valkey's primary killed in the middle of it: what was acknowledged is there, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from accessguard.sessions.spool import STREAM
from tests.journeys.outage import Outage, outage
from tests.service import FIREFOX, Answer, Tenant, items
from tests.sessions.topology import Cluster, Server, Watched, eventually, own_cluster, own_sentinels

pytestmark = [pytest.mark.slow, pytest.mark.chaos]


@pytest.fixture(params=["sentinel", "cluster"])
async def servers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster | Watched]:
    """A Valkey that fails over, one way and the other."""
    folder = tmp_path / "servers"
    folder.mkdir()
    if request.param == "sentinel":
        async with own_sentinels(folder) as watched:
            yield watched
    else:
        async with own_cluster(folder, replicas=3) as cluster:
            yield cluster


@pytest.fixture
async def there(servers: Cluster | Watched, tmp_path: Path) -> AsyncIterator[Outage]:
    """A worker on it."""
    async with outage(tmp_path, servers.url) as made:
        yield made


async def test_logins_that_wait_outlive_the_primary_of_valkey(there, servers):
    """Each answered one is recorded when PostgreSQL is back; nobody blocked is let in meanwhile."""
    tenant = there.worker.tenant()
    blocked = await tenant.login("ben", user_agent=FIREFOX)
    await tenant.device("ben", blocked["device"]["id"], access="blocked")
    await tenant.check(blocked, user_agent=FIREFOX)
    await there.kill_postgres()
    while not there.worker.context.ready._db.breaker.open:
        await tenant.check(str(uuid4()))
    before = [await login(tenant, f"before{n}") for n in range(5)]
    primary = await servers.owner(STREAM) if isinstance(servers, Cluster) else servers.primary
    await primary.kill()
    during = await tenant.check(blocked, user_agent=FIREFOX)
    await eventually(lambda: promoted(servers, primary))
    await primary.start()  # as a replica, without which no login is acknowledged
    await eventually(lambda: let_in(tenant, "after"))
    await there.start_postgres()
    await there.drained()

    kept = [each for each in before if each.status == 200]
    lines = [list(items(await tenant.see(f"/v1/members/before{n}/logins"))) for n in range(5)]
    sessions = [await tenant.check(each, user_agent=FIREFOX) for each in kept]
    assert len(kept) == 5
    assert [[line["id"] for line in each] for each in lines] == [[each["attempt_id"]] for each in before]
    assert {each["decision"] for each in sessions} == {"allow"}
    assert during["decision"] == "deny"


async def promoted(servers: Cluster | Watched, killed: Server) -> bool:
    """Whether somebody else is the primary."""
    if isinstance(servers, Cluster):
        return await servers.owner(STREAM) is not killed
    return bool((await servers.replica.admin.info("replication"))["role"] == "master")


async def login(tenant: Tenant, member: str) -> Answer:
    """A login with an id of its own."""
    return await tenant.login(member, user_agent=FIREFOX, attempt_id=str(uuid4()))


async def let_in(tenant: Tenant, member: str) -> bool:
    """Whether somebody new gets in."""
    return (await login(tenant, member)).status == 200
