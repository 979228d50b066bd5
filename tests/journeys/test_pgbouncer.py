"""PgBouncer in transaction mode between the service and PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from accessguard import migrations
from accessguard.database import Database
from accessguard.embedded import Embedded
from accessguard.embedded.process import Child, server_user
from accessguard.errors import GuardError
from accessguard.events.chain import ChainStore
from accessguard.guard.auditing import Auditing
from tests.data import lay_out
from tests.service import FIREFOX, Service, config, configured, items
from tests.sessions.topology import eventually

FOUND = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FOUND is None, reason="there is no pgbouncer here (Debian: apt-get install pgbouncer)"),
]

INI = """
[databases]
accessguard = host={runtime} dbname=accessguard user=accessguard
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {runtime}
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
"""
PID = "SELECT pg_backend_pid()"


@pytest.fixture(scope="module")
async def stores(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Embedded]:
    """Stores of this file's own, as settings of the role are changed."""
    embedded = await Embedded.start(await lay_out(tmp_path_factory.mktemp("pgbouncer") / "stores"))
    await migrations.migrate(embedded.database_url)
    yield embedded
    await embedded.stop()


@pytest.fixture(scope="module")
async def url(stores: Embedded) -> AsyncIterator[str]:
    """The address of a PgBouncer with three connections."""
    file = stores.runtime / "pgbouncer.ini"
    file.write_text(INI.format(runtime=stores.runtime))
    user = server_user(stores.folder / "postgres")
    child = Child.start(
        [str(FOUND), file], user=user, folder=stores.runtime, log=stores.runtime / "b.log", goodbye=signal.SIGINT
    )
    try:
        await eventually(lambda: there(stores.runtime))
        yield f"postgresql://accessguard@/accessguard?host={stores.runtime}&port=6432"
    finally:
        await child.stop(within_s=3)


async def there(runtime: Path) -> bool:
    """Whether it listens."""
    return (runtime / ".s.PGSQL.6432").exists()


@contextlib.asynccontextmanager
async def pool(url: str, *, pooled: bool = True, size: int = 20) -> AsyncIterator[Database]:
    """A pool that is closed at the end."""
    made = await Database.connect(url, size=size, pooled=pooled)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(scope="module")
async def worker(stores: Embedded, url: str) -> AsyncIterator[Service]:
    """One worker behind PgBouncer."""
    said = config(url, stores.redis_url)
    async with configured(
        msgspec.structs.replace(said, database=msgspec.structs.replace(said.database, pgbouncer=True, pool_size=20))
    ) as made:
        yield made


async def test_pgbouncer_refuses_a_pool_that_does_not_know_of_it(url):
    """So that nobody finds out later: a setting for the whole connection is no more than a wish there."""
    with pytest.raises(GuardError):
        async with pool(url, pooled=False):
            pass


async def test_calls_go_through_any_connection(url):
    """Statements with values, JSON, lists and types of the schema's own, many at once over three."""
    async with pool(url) as db:
        pids = await asyncio.gather(*(db.value(f"SELECT pg_backend_pid() WHERE $1 = {n}", n) for n in range(200)))
        sums = await asyncio.gather(
            *(db.value("SELECT $1::int + cardinality($2::text[])", n, ["a"]) for n in range(200))
        )
        raw = await db.value("SELECT $1::jsonb", {"a": 1})

    assert len(set(pids)) > 1
    assert sums == [n + 1 for n in range(200)]
    assert msgspec.json.decode(raw) == {"a": 1}


async def test_a_transaction_stays_on_one_connection(url):
    """With its lock, which nobody else gets until its end."""
    lock = "SELECT pg_try_advisory_xact_lock(4711)"
    async with pool(url) as db:
        async with db.transaction() as tx:
            mine = [await tx.value(lock), *[await tx.value(PID) for _ in range(20)]]
            theirs = await asyncio.gather(*(db.value(lock) for _ in range(20)))
        after = await db.value(lock)

    assert (mine[0], len(set(mine[1:]))) == (True, 1)
    assert not any(theirs)
    assert after is True


async def test_a_call_that_is_given_up_costs_nobody_elses_answer(url):
    """It is cancelled where it runs, and the connection goes on with the next."""
    async with pool(url) as db:
        with pytest.raises(GuardError):
            await db.value("SELECT pg_sleep(5)", timeout_s=0.2)
        answers = await asyncio.gather(*(db.value("SELECT $1::int", n) for n in range(50)))

    assert answers == list(range(50))


async def test_the_service_works_behind_it(worker):
    """Logins of many members at once, checks, a block, lists and violations."""
    tenant = worker.tenant()
    await tenant.rule("session_limit", max=1)

    logins = await asyncio.gather(*(tenant.login(f"m{n % 15}", user_agent=FIREFOX) for n in range(60)))
    let_in = [each for each in logins if each["session"]]
    checks = await asyncio.gather(*(tenant.check(each, user_agent=FIREFOX, activity="lesson_open") for each in let_in))
    alone = await tenant.login("alone", user_agent=FIREFOX)
    blocked = await tenant.device("alone", alone["device"]["id"], access="blocked")
    refused = await tenant.check(alone, user_agent=FIREFOX)
    seen = items(await tenant.see("/v1/members/alone/logins"))

    assert {each.status for each in (*logins, *checks, blocked)} == {200}
    assert len(let_in) == 15
    assert {each["decision"] for each in checks} == {"allow"}
    assert refused["decision"] == "deny"
    assert len(list(seen)) == 1


async def test_acts_of_operators_make_one_chain_through_it(worker, url):
    """Each commit appends to the audit log's chain under a lock that ends with it, on whichever connection."""
    tenant = worker.tenant()
    await tenant.login("ana")

    answers = await asyncio.gather(
        *(tenant.call("PATCH", "/v1/members/ana", {"note": str(n)}, role="supervisor") for n in range(30))
    )
    async with pool(url) as db:
        found = await Auditing(ChainStore(db)).verify(tenant.name, step=lambda _: None)

    assert {answer.status for answer in answers} == {200}
    assert (found.fault, found.entries) == (None, 30)


async def test_the_look_at_the_schema_works_through_it(url):
    """Again and again, on whichever connection."""
    found = await asyncio.gather(*(migrations.revision(url) for _ in range(10)))

    assert set(found) == {migrations.head()}


async def test_settings_that_the_role_lacks_are_named(stores, url):
    """Until they are given to it, as docs/operations.md says."""
    async with pool(stores.database_url, pooled=True) as db:
        before = await db.unsettled()
        await db.row("ALTER ROLE accessguard SET enable_seqscan = off")
        await db.row("ALTER ROLE accessguard SET jit = off")
    async with pool(stores.database_url, pooled=True) as db:
        after = await db.unsettled()

    assert "enable_seqscan" in before
    assert after == ()
