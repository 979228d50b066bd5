"""Migrations beside a service that runs: they give way, wait for each other, and are taken up where they were killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from asyncpg.exceptions import LockNotAvailableError

from accessguard import migrations
from accessguard.database import Database
from accessguard.errors import GuardError, StartError
from accessguard.migrations import run, standing
from accessguard.migrations.indexes import INDEXES
from tests.migrations.databases import connected, own_stores
from tests.service import running

NEXT = """
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade():
    op.execute("ALTER TABLE member ADD COLUMN newest text")
"""
WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'member'::regclass"
THERE = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'member'::regclass AND attname = 'newest'"
VALID = "SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid::regclass::text = ANY($1)"
PARTITION = "SELECT ensure_partition('login_attempt', '2099-01-01')"


@pytest.fixture
def one_more(tmp_path, monkeypatch) -> None:
    """Let this be a release that brings one more migration, which changes the table `member`."""
    folder = tmp_path / "migrations"
    shutil.copytree(run.HERE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "9999_next.py").write_text(NEXT.format(head=migrations.head()))
    monkeypatch.setattr(run, "HERE", folder)
    monkeypatch.setattr(standing, "VERSIONS", folder / "versions")


@asynccontextmanager
async def migrating(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`accessguard migrate` in a process of its own; gone at the end."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ACCESSGUARD_")}
    environ |= {"ACCESSGUARD_DATABASE_URL": url, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "accessguard", "migrate", env=environ)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.slow
async def test_checks_and_logins_go_on_while_a_migration_waits_for_a_table(tmp_path, request):
    """Somebody uses `member` for long; the migration asks for it again and again, and nobody waits behind it."""
    async with own_stores(tmp_path / "stores") as stores:
        await migrations.migrate(stores.database_url)
        async with running(stores.database_url, stores.redis_url) as service, connected(stores.database_url) as holder:
            tenant = service.tenant()
            before = await tenant.login("ana")
            request.getfixturevalue("one_more")
            use = holder.transaction()
            await use.start()
            await holder.execute("LOCK TABLE member IN ROW EXCLUSIVE MODE")

            waiting = asyncio.create_task(migrations.migrate(stores.database_url))
            tries, answers = 0, []
            while tries < 3:
                while not await holder.fetchval(WAITS):
                    await asyncio.sleep(0.005)
                tries += 1
                answers += [await tenant.login(f"member-{tries}"), await tenant.check(before)]
                while await holder.fetchval(WAITS):
                    await asyncio.sleep(0.005)
            early = waiting.done()
            await use.rollback()
            reached = await waiting
            there = await holder.fetchval(THERE)

    assert [(each.status, each["degraded"]) for each in answers[::2]] == [(200, False)] * 3
    assert [(each.status, each["degraded"]) for each in answers[1::2]] == [(200, False)] * 3
    assert (early, reached, there) == (False, "9999", 1)


@pytest.mark.slow
async def test_a_table_that_never_gets_free_ends_a_migration_with_a_sentence(empty, one_more):
    """It gives up when its time is over; what came before it is done, and the rest is next time."""
    await migrations.migrate(empty, to=migrations.revisions()[-2])
    async with connected(empty) as holder, holder.transaction():
        await holder.execute("LOCK TABLE member IN ROW EXCLUSIVE MODE")

        with pytest.raises(StartError, match=r"in use all the time.*--wait"):
            await migrations.migrate(empty, patience_s=0)

    assert await migrations.migrate(empty) == "9999"


@pytest.mark.slow
async def test_a_second_migration_waits_for_the_first_and_not_for_ever(empty):
    """While another holds the lock it changes nothing, and says whom it has waited for."""
    async with connected(empty) as other:
        await other.execute(f"SELECT pg_advisory_lock({run.LOCK_NUMBER})")

        with pytest.raises(StartError, match="Another `accessguard migrate`"):
            await migrations.migrate(empty, patience_s=0)
        untouched = await migrations.revision(empty)

    assert untouched is None
    assert await migrations.migrate(empty) == migrations.head()


@pytest.mark.slow
@pytest.mark.chaos
async def test_a_migration_that_is_killed_is_taken_up_where_it_was(empty):
    """Killed (-9) after the first revision, and again while it waits in the middle: the next run ends well."""
    async with migrating(empty) as process, connected(empty) as connection:
        while not await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL"):
            await asyncio.sleep(0.005)
        process.kill()
    await migrations.migrate(empty, to="0004")
    async with connected(empty) as holder, holder.transaction():
        await holder.execute("LOCK TABLE member IN ROW EXCLUSIVE MODE")
        async with migrating(empty) as process:
            while not await holder.fetchval(WAITS):
                await asyncio.sleep(0.005)
            process.kill()
    cut_off = await migrations.revision(empty)

    async with migrating(empty) as process:
        code = await process.wait()

    async with connected(empty) as connection:
        indexes = await connection.fetchval(VALID, list(INDEXES))
    assert (cut_off, code) == ("0004", 0)
    assert (await migrations.revision(empty), indexes) == (migrations.head(), len(INDEXES))


async def test_a_migration_is_safe_to_repeat(empty):
    """The second run finds nothing to do."""
    first = await migrations.migrate(empty)

    assert await migrations.migrate(empty) == first


@pytest.mark.slow
async def test_a_new_partition_gives_way_to_whoever_reads_the_default_one(empty):
    """A backup reads `login_attempt` for long: upkeep leaves the new month for later, and nobody waits behind it."""
    await migrations.migrate(empty)
    db = await Database.connect(empty, size=1)
    try:
        async with connected(empty) as reader, reader.transaction():
            await reader.execute("LOCK TABLE login_attempt_default IN ACCESS SHARE MODE")
            with pytest.raises(GuardError) as refused:
                await db.value(PARTITION)
            cause = refused.value.__cause__
        await db.value(PARTITION)
    finally:
        await db.close()

    assert isinstance(cause, LockNotAvailableError)
