"""A streaming replica of PostgreSQL for operators' lists: used while it is up to date, and never missed."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from accessguard import migrations
from accessguard.database import Database
from accessguard.embedded import Embedded
from accessguard.embedded.postgres import NAME, database_url, launch, program
from accessguard.embedded.process import Child, server_user
from accessguard.errors import GuardError
from accessguard.metrics import REPLICA_READS
from tests.data import lay_out
from tests.service import FIREFOX, Service, Tenant, config, configured, items
from tests.sessions.topology import eventually

pytestmark = [pytest.mark.slow, pytest.mark.chaos]


@dataclass
class Standby:
    """The replica's process."""

    data: Path
    runtime: Path
    child: Child

    @property
    def url(self) -> str:
        """Its address."""
        return database_url(self.runtime)

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        self.child = launch(self.data, self.runtime, server_user(self.data))
        await eventually(self._answers)

    async def _answers(self) -> bool:
        try:
            await self.ask("SELECT 1")
        except GuardError:
            return False
        return True

    async def ask(self, statement: str) -> object:
        """One question of the test's own."""
        db = await Database.connect(self.url, size=1)
        try:
            return await db.value(statement)
        finally:
            await db.close()


@pytest.fixture(scope="module")
async def stores(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Embedded]:
    """A primary of this file's own."""
    embedded = await Embedded.start(await lay_out(tmp_path_factory.mktemp("replica") / "stores"))
    await migrations.migrate(embedded.database_url)
    yield embedded
    await embedded.stop()


@pytest.fixture(scope="module")
async def standby(stores: Embedded) -> AsyncIterator[Standby]:
    """A replica that follows it."""
    user = server_user(stores.folder / "postgres")
    runtime, data = Path(tempfile.mkdtemp(prefix="ag-")), stores.runtime / "standby"
    user.owns(runtime)
    source = ("-h", str(stores.runtime), "-U", NAME)
    copy: list[str | Path] = [program("pg_basebackup"), *source, "-D", data, "-X", "stream", "-R", "-c", "fast"]
    copying = Child.start(
        copy, user=user, folder=stores.runtime, log=stores.folder / "copy.log", goodbye=signal.SIGTERM
    )
    assert await copying.exit_code(within_s=30) == 0, copying.log.read_text()
    made = Standby(data, runtime, copying)
    try:
        await made.start()
        yield made
    finally:
        await made.child.stop()
        shutil.rmtree(runtime)


@pytest.fixture(scope="module")
async def worker(stores: Embedded, standby: Standby) -> AsyncIterator[Service]:
    """One worker with both."""
    said = config(stores.database_url, stores.redis_url)
    database = msgspec.structs.replace(said.database, replica_url=standby.url)
    async with configured(msgspec.structs.replace(said, database=database)) as made:
        yield made


@pytest.fixture
def tenant(worker: Service) -> Tenant:
    """A tenant that no other test knows."""
    return worker.tenant()


def read_from(source: str) -> float:
    """How many reads were answered there so far."""
    return float(REPLICA_READS.labels(source)._value.get())


async def names(tenant: Tenant) -> set[str]:
    """The members that an operator sees."""
    return {each["member_id"] for each in items(await tenant.see("/v1/members"))}


async def test_lists_come_from_the_replica_with_what_was_just_written(tenant):
    """Twenty times in a row, however little time there was to follow; decisions ask it nothing."""
    before, seen, asked = read_from("replica"), [], []
    for number in range(20):
        reads = read_from("replica") + read_from("primary")
        login = await tenant.login(f"m{number}", user_agent=FIREFOX)
        assert (await tenant.check(login, user_agent=FIREFOX))["decision"] == "allow"
        asked.append(read_from("replica") + read_from("primary") - reads)
        seen.append(len(await names(tenant)))

    assert seen == list(range(1, 21))
    assert asked == [0] * 20
    assert read_from("replica") > before


async def test_a_replica_that_is_behind_is_passed_over(tenant, standby):
    """Nobody reads a list without what they have just done."""
    await standby.ask("SELECT pg_wal_replay_pause()")
    before = read_from("primary")
    try:
        await tenant.login("ana", user_agent=FIREFOX)
        seen = await names(tenant)
        answered = read_from("primary")
    finally:
        await standby.ask("SELECT pg_wal_replay_resume()")

    assert seen == {"ana"}
    assert answered > before


async def test_a_replica_that_is_gone_is_not_missed(tenant, standby):
    """Killed, and used again when it is back."""
    await tenant.login("ana", user_agent=FIREFOX)
    await standby.child.kill()

    answers = [await names(tenant) for _ in range(10)]
    await standby.start()
    await eventually(lambda: used(tenant))

    assert answers == [{"ana"}] * 10


async def used(tenant: Tenant) -> bool:
    """Whether a list came from the replica."""
    before = read_from("replica")
    await names(tenant)
    await asyncio.sleep(0.05)
    return read_from("replica") > before
