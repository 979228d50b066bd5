"""Backups of the embedded default: taken while it serves, verified, restored whole or not at all."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import ClientSession

from accessguard import migrations
from accessguard.database import Database
from accessguard.embedded import Embedded, EmbeddedError
from accessguard.embedded.archive import DUMP, MANIFEST, Manifest, read
from accessguard.embedded.backup import back_up
from accessguard.embedded.process import User
from accessguard.embedded.restore import restore
from accessguard.embedded.stores import RESTORING, SECRETS
from accessguard.events.chain import ChainStore
from accessguard.guard.auditing import Auditing
from tests.data import lay_out
from tests.journeys.test_kill import Crowd, attempt, call, started
from tests.migrations.databases import connected, own_stores
from tests.service import LAPTOP, SECRET, token
from tests.test_command_line import accessguard

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OPEN_PORTS = {"token_secrets": SECRET, "port": "0", "admin_port": "0"}
TENANTS = "SELECT array_agg(id ORDER BY id) FROM tenant"
ENTRY = """
    INSERT INTO audit (tenant, id, at, actor, role, action, target_kind, target_id, after)
    SELECT $1, gen_random_uuid(), now(), 'kim', 'root', 'x', 'x', n::text, '{"b": 1, "a": "ñ 🦊"}' FROM generate_series(1, 3) n
"""
TENANT = "INSERT INTO tenant (id, name, created_at) VALUES ($1, '', now())"
MANY = """
    INSERT INTO audit (tenant, id, at, actor, role, action, target_kind, target_id, reason)
    SELECT 'school', gen_random_uuid(), now(), 'kim', 'root', 'x', 'x', n::text, repeat(md5(n::text), 20)
      FROM generate_series(1, 20000) n
"""
APART = """
    SELECT count(*) FROM session s FULL JOIN login_attempt a ON (a.tenant, a.session_id) = (s.tenant, s.id)
     WHERE s.id IS NULL OR a.id IS NULL
"""


@pytest.fixture(scope="module")
async def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of the school `oak`, to be copied and spoilt."""
    folder = tmp_path_factory.mktemp("sound")
    await school(folder / "data", "oak")
    await backed_up(folder / "data", folder / "one")
    return folder / "one"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty database to restore into is copied, not made: other tests restore into one that is made."""

    async def copied(data: Path, user: User) -> None:
        place = data.with_name("laid-out")
        await lay_out(place, migrated=False)
        (place / "postgres").rename(data)

    monkeypatch.setattr("accessguard.embedded.postgres.make_data", copied)


def silent(_: int, __: int) -> None:
    """Nobody looks at the bar."""


async def backed_up(folder: Path, target: Path, *, keys: bool = True) -> Manifest:
    """A backup taken at noon."""
    return await back_up(folder, target, now=NOW, keys=keys, progress=silent)


async def school(folder: Path, *names: str, revision: str | None = None) -> Path:
    """A data folder with these tenants and keys of its own."""
    await lay_out(folder, migrated=revision is None)
    async with own_stores(folder) as stores:
        if revision is not None:
            await migrations.migrate(stores.database_url, to=revision)
        async with connected(stores.database_url) as connection:
            for name in names:
                await connection.execute(TENANT, name)
                await connection.execute(ENTRY, name)
    (folder / SECRETS).write_text(f'OF = "{names[0]}"\n')
    return folder


async def tenants(folder: Path) -> list[str]:
    """The tenants that a service on this folder finds, which brings its schema up to date; their audit logs are whole."""
    async with own_stores(folder) as stores:
        await migrations.migrate(stores.database_url)
        db = await Database.connect(stores.database_url, size=1)
        auditing = Auditing(ChainStore(db))
        logs = [await auditing.verify(each, step=lambda _: None) async for each in auditing.tenants()]
        found: list[str] = await db.value(TENANTS)
        await db.close()
    assert {each.tenant for each in logs} == {"*", *found}
    assert [(each.fault, each.entries + each.earlier) for each in logs if each.tenant != "*"] == [(None, 3)] * len(
        found
    )
    return found


async def begun(*words: str | Path, folder: Path) -> asyncio.subprocess.Process:
    """The command in a process of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ACCESSGUARD_")}
    environ |= {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = (sys.executable, "-m", "accessguard", *words)
    return await asyncio.create_subprocess_exec(*command, cwd=folder, env=environ, stdout=-3, stderr=-3)


async def killed_when(process: asyncio.subprocess.Process, folder: Path, pattern: str) -> list[psutil.Process]:
    """Kill it (-9) once a file of this name has something in it; the processes that it had started."""
    while not any(each.stat().st_size for each in folder.glob(pattern)):
        assert process.returncode is None, "it ended before it was killed"
        await asyncio.sleep(0.001)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    return children


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_backup_taken_while_it_serves_brings_back_everybody_who_was_logged_in(tmp_path):
    """Ten members log in without pause. On another machine, their sessions go on and their devices are known."""
    here, there = tmp_path / "here", tmp_path / "there"
    await lay_out(here / ".accessguard")
    there.mkdir()
    bearer = token("demo", "platform")
    async with ClientSession() as http, started(here, "dev", **OPEN_PORTS) as service:
        crowd = Crowd(http, service.url, bearer)
        going = asyncio.create_task(crowd.go(10))
        while len(crowd.told) < 50:
            await asyncio.sleep(0.001)
            assert not going.done()
        before = dict(crowd.told)
        taken = await asyncio.to_thread(accessguard, "backup", "../one", folder=here)
        during = len(crowd.told)
        service.kill()
        await going
    restored = await asyncio.to_thread(accessguard, "restore", "../one", folder=there)
    async with own_stores(there / ".accessguard") as stores, connected(stores.database_url) as connection:
        apart = await connection.fetchval(APART)
    async with ClientSession() as http, started(there, "dev", **OPEN_PORTS) as service:
        answers: list[tuple[dict[str, Any], Any, Any]] = []
        for member, told in before.items():
            shown = {"ip": LAPTOP, "device_token": told["device"]["token"]}
            asked = shown | {"session_id": told["session"]["id"]}
            _, check = await call(http, "POST", f"{service.url}/v1/check", bearer, asked)
            _, login = await call(http, "POST", f"{service.url}/v1/logins", bearer, attempt(member) | shown)
            answers.append((told, check, login))

    assert (taken.returncode, restored.returncode) == (0, 0), taken.stderr + restored.stderr
    assert "The keys are in it" in taken.stdout
    assert during > 50
    assert apart == 0
    assert {check["decision"] for _, check, _ in answers} == {"allow"}
    assert all(login["device"]["id"] == told["device"]["id"] for told, _, login in answers)


@pytest.mark.slow
async def test_a_backup_is_for_its_owner_alone_and_leaves_keys_out_when_told(tmp_path, quick):
    """Nobody else can enter it; without its keys it says so, and a restore leaves the folder's own."""
    folder = await school(tmp_path / "data", "oak")

    with_keys = await backed_up(folder, tmp_path / "one")
    without = await backed_up(folder, tmp_path / "two", keys=False)
    (folder / SECRETS).write_text('OF = "later"\n')
    await restore(tmp_path / "two", folder, force=True, progress=silent)

    modes = {stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "one").iterdir()}
    assert (stat.S_IMODE((tmp_path / "one").stat().st_mode), modes) == (0o700, {0o600})
    assert sorted(each.name for each in (tmp_path / "one").iterdir()) == sorted([DUMP, MANIFEST, SECRETS])
    assert (with_keys.has_keys, without.has_keys) == (True, False)
    assert "later" in (folder / SECRETS).read_text()


@pytest.mark.slow
async def test_a_restore_overwrites_nothing_unless_it_is_forced(tmp_path, sound, quick):
    """An occupied folder stays as it is; with force it is the backup's afterwards, keys and all, and Valkey's state is gone."""
    data = await school(tmp_path / "new", "elm")

    with pytest.raises(EmbeddedError, match="--force"):
        await restore(sound, data, force=False, progress=silent)
    kept = (data / SECRETS).read_text()
    await restore(sound, data, force=True, progress=silent)
    left = sorted(each.name for each in data.iterdir() if each.is_dir())

    assert "elm" in kept
    assert await tenants(data) == ["oak"]
    assert "oak" in (data / SECRETS).read_text()
    assert left == ["postgres"]


@pytest.mark.slow
async def test_a_restore_leaves_a_folder_alone_that_is_in_use(tmp_path, sound):
    """While a service runs on it, even force does not help; it goes on."""
    await lay_out(tmp_path / "data")
    async with own_stores(tmp_path / "data") as stores, connected(stores.database_url) as connection:
        with pytest.raises(EmbeddedError, match="Another service is running"):
            await restore(sound, tmp_path / "data", force=True, progress=silent)

        assert await connection.fetchval("SELECT 1") == 1


@pytest.mark.slow
async def test_a_backup_of_the_release_before_is_restored_and_brought_up_to_date(tmp_path, quick):
    """The schema comes back as it was; the next start migrates it."""
    await school(tmp_path / "data", "oak", revision="0002")
    taken = await backed_up(tmp_path / "data", tmp_path / "one")

    await restore(tmp_path / "one", tmp_path / "again", force=False, progress=silent)

    assert taken.revision == "0002"
    assert await tenants(tmp_path / "again") == ["oak"]


def damaged(backup: Path) -> str:
    """One byte in the middle of the dump is another; what is said then."""
    raw = bytearray((backup / DUMP).read_bytes())
    raw[len(raw) // 2] ^= 1
    (backup / DUMP).write_bytes(raw)
    return "is not what was written"


def cut(backup: Path) -> str:
    """The end of the dump is missing."""
    os.truncate(backup / DUMP, (backup / DUMP).stat().st_size - 1)
    return "is not what was written"


def unsigned(backup: Path) -> str:
    """There is no manifest, as when it was cut off."""
    (backup / MANIFEST).unlink()
    return "no whole backup"


def keyless(backup: Path) -> str:
    """The keys that should be in it are not."""
    (backup / SECRETS).unlink()
    return f"{SECRETS} is missing"


def later(backup: Path) -> str:
    """It is of a release that is yet to come."""
    text = (backup / MANIFEST).read_text().replace(f'"{migrations.head()}"', '"9999"')
    (backup / MANIFEST).write_text(text)
    return "upgrade AccessGuard"


def miscounted(backup: Path) -> str:
    """The manifest tells of a row that is not in the dump."""
    text = (backup / MANIFEST).read_text().replace('"tenant": 1', '"tenant": 2')
    (backup / MANIFEST).write_text(text)
    return "not what was backed up: tenant"


@pytest.mark.slow
@pytest.mark.parametrize("harm", [damaged, cut, unsigned, keyless, later, miscounted])
async def test_what_is_not_whole_is_not_restored(tmp_path, sound, harm, quick):
    """It is said what is wrong, and what was in the folder is still there."""
    shutil.copytree(sound, tmp_path / "one")
    (tmp_path / "new" / "postgres").mkdir(parents=True)
    (tmp_path / "new" / "postgres" / "kept").touch()
    sentence = harm(tmp_path / "one")

    with pytest.raises(EmbeddedError, match=sentence):
        await restore(tmp_path / "one", tmp_path / "new", force=True, progress=silent)

    left = {str(each.relative_to(tmp_path / "new")) for each in (tmp_path / "new").rglob("*")}
    assert left - {"lock"} == {"postgres", "postgres/kept"}


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_a_backup_that_is_killed_has_no_name_yet(tmp_path):
    """Killed (-9) while it writes: there is nothing that looks like a backup, its tools are gone, and the next one is whole."""
    await lay_out(tmp_path / ".accessguard")
    async with own_stores(tmp_path / ".accessguard") as stores, connected(stores.database_url) as connection:
        await connection.execute(MANY)
        process = await begun("backup", "one", folder=tmp_path)
        tools = await killed_when(process, tmp_path, f".one.new-*/{DUMP}")
        there = (tmp_path / "one").exists()
        await backed_up(tmp_path / ".accessguard", tmp_path / "one")
    psutil.wait_procs(tools, timeout=20)

    assert there is False
    assert [each for each in tools if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []
    assert read(tmp_path / "one").rows["audit"] == 20_000


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_a_restore_that_is_killed_has_changed_nothing(tmp_path, sound):
    """Killed (-9) while it loads: what was there serves on, and the same restore works afterwards."""
    data = await school(tmp_path / ".accessguard", "elm")

    process = await begun("restore", sound, "--force", folder=tmp_path)
    tools = await killed_when(process, data, "restore.new/log")
    psutil.wait_procs(tools, timeout=20)
    kept = await tenants(data)
    again = await asyncio.to_thread(accessguard, "restore", str(sound), "--force", folder=tmp_path)

    assert (kept, again.returncode) == (["elm"], 0)
    assert await tenants(data) == ["oak"]


@pytest.mark.slow
async def test_a_folder_that_was_cut_off_between_old_and_new_is_not_used(tmp_path, sound, quick):
    """In the one moment in which it is neither, it says so; a restore makes it whole and needs no force for it."""
    data = tmp_path / "data"
    (data / "postgres").mkdir(parents=True)
    (data / RESTORING).touch()

    with pytest.raises(EmbeddedError, match="was cut off"):
        await Embedded.start(data)
    with pytest.raises(EmbeddedError, match="no database"):
        await backed_up(data, tmp_path / "two")
    await restore(sound, data, force=False, progress=silent)

    assert await tenants(data) == ["oak"]


@pytest.mark.parametrize(
    ("words", "values", "sentence"),
    [
        pytest.param(("backup",), {}, "There is no database in ", id="nothing there"),
        pytest.param(("backup",), {"database_url": "postgresql://x/y"}, "PostgreSQL of your own", id="own server"),
        pytest.param(("backup", "none/one"), {}, "Cannot write a backup to", id="nowhere"),
        pytest.param(("restore", "none"), {}, "'none' does not exist", id="no such backup"),
        pytest.param(("restore", "."), {}, "no whole backup", id="no backup"),
    ],
)
def test_what_cannot_be_backed_up_or_restored_is_said_in_one_sentence(tmp_path, words, values, sentence):
    """No trace, exit code not 0, and nothing written."""
    answer = accessguard(*words, folder=tmp_path, **values)

    assert answer.returncode != 0
    assert sentence in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not list(tmp_path.iterdir())
