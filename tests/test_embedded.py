"""The embedded stores are real servers that start fast, keep their data and leave nothing behind."""

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from accessguard.embedded import Embedded, EmbeddedError
from accessguard.embedded.process import package_folder

HOLDER = """
import asyncio, sys
from pathlib import Path
from accessguard.embedded import Embedded

async def hold():
    stores = await Embedded.start(Path(sys.argv[1]))
    print(stores.postgres.pid, stores.valkey.pid, stores.runtime, flush=True)
    await asyncio.sleep(600)

asyncio.run(hold())
"""


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[Embedded]:
    """Stores of this test alone, which it may kill."""
    embedded = await Embedded.start(tmp_path / "data")
    yield embedded
    await embedded.stop()


async def ask(stores: Embedded, question: str) -> object:
    """Return the one value that a query answers, over a connection of its own."""
    connection = await asyncpg.connect(stores.database_url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def tell(stores: Embedded, *words: str) -> str:
    """Send one inline command to Valkey and return the first line of its answer."""
    reader, writer = await asyncio.open_unix_connection(stores.redis_url.removeprefix("unix://"))
    writer.write(" ".join(words).encode() + b"\r\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer.decode().strip()


def living(*pids: int) -> list[int]:
    """Return those of the processes that run; a zombie does not."""
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


async def gone(*pids: int) -> bool:
    """Whether the processes have ended, or end within ten seconds."""
    for _ in range(1000):
        if not living(*pids):
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        pytest.param("fsync", "on", id="commits reach the disk"),
        pytest.param("synchronous_commit", "on", id="an answer follows the commit"),
        pytest.param("listen_addresses", "", id="no port is opened"),
        pytest.param("TimeZone", "UTC", id="times are UTC"),
        pytest.param("server_encoding", "UTF8", id="text is UTF-8"),
        pytest.param("max_connections", "100", id="a hundred connections"),
    ],
)
async def test_postgres_runs_with_the_settings_of_a_production_server(stores, setting, value):
    """What is tested here is what runs there: durable, in UTC and UTF-8, and private."""
    answer = await ask(stores, f"SELECT current_setting('{setting}')")

    assert answer == value


async def test_valkey_answers_and_keeps_a_journal(stores):
    """Logins may wait in it, so it writes down what it does; no snapshot besides."""
    assert await tell(stores, "SET", "key", "value") == "+OK"
    assert [each.name for each in (stores.folder / "valkey").iterdir()] == ["appendonlydir"]


async def test_the_sockets_lie_in_a_private_folder_with_a_short_path(stores):
    """Nobody else may enter, and the path fits into the 107 bytes of a socket's address."""
    mode = stat.S_IMODE(stores.runtime.stat().st_mode)

    assert mode == 0o700
    assert len(str(stores.runtime / ".s.PGSQL.5432")) <= 107


async def test_data_are_kept_between_two_runs(tmp_path):
    """A second start on the same folder finds what the first one committed."""
    first = await Embedded.start(tmp_path)
    await ask(first, "CREATE TABLE kept AS SELECT 42 AS answer")
    await first.stop()

    second = await Embedded.start(tmp_path)
    answer = await ask(second, "SELECT answer FROM kept")
    await second.stop()

    assert answer == 42


async def test_a_stop_leaves_no_process_and_no_socket(tmp_path):
    """Both servers end, and the folder with their sockets goes with them."""
    stores = await Embedded.start(tmp_path)
    pids = [child.pid for child in (stores.postgres, stores.valkey) if child]

    await stores.stop()

    assert await gone(*pids)
    assert not stores.runtime.exists()


async def test_a_killed_postgres_starts_again_with_all_it_acknowledged(own):
    """After a crash the journal brings back every commit, at the same address."""
    await ask(own, "CREATE TABLE kept AS SELECT 42 AS answer")

    await own.postgres.kill()
    await own.start_postgres()

    assert await ask(own, "SELECT answer FROM kept") == 42


async def test_a_killed_valkey_starts_again_with_what_was_on_its_disk(own):
    """After a crash Valkey answers at the same address and knows what it has acknowledged as written."""
    reader, writer = await asyncio.open_unix_connection(own.redis_url.removeprefix("unix://"))
    writer.write(b"SET key value\r\nWAITAOF 1 0 20000\r\n")
    assert [await reader.readline() for _ in range(3)] == [b"+OK\r\n", b"*2\r\n", b":1\r\n"]
    writer.close()

    await own.valkey.kill()
    await own.start_valkey()

    assert await tell(own, "GET", "key") == "$5"


async def test_a_service_that_is_killed_leaves_no_server_running(tmp_path):
    """A kill -9 of the parent ends both servers, and the next start removes the sockets and goes on."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        postgres, valkey, runtime = holder.stdout.readline().split()
        holder.kill()

    stores = await Embedded.start(tmp_path)
    healthy = await ask(stores, "SELECT 1")
    await stores.stop()

    assert healthy == 1
    assert await gone(int(postgres), int(valkey))
    assert not Path(runtime).exists()


async def test_a_second_service_on_the_same_folder_is_refused(own):
    """One folder belongs to one service; the second one is told so and harms nothing."""
    with pytest.raises(EmbeddedError, match="Another service is running"):
        await Embedded.start(own.folder)

    assert await ask(own, "SELECT 1") == 1


async def test_a_start_that_was_interrupted_is_begun_afresh(tmp_path):
    """A half-made database never looks like a finished one."""
    start = asyncio.create_task(Embedded.start(tmp_path))
    while not list(tmp_path.glob("postgres.new-*/PG_VERSION")):
        await asyncio.sleep(0.001)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    left = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())

    stores = await Embedded.start(tmp_path)
    await stores.stop()

    assert left == ["valkey"]


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        pytest.param("garbage", "is broken", id="no version"),
        pytest.param("", "is broken", id="empty"),
        pytest.param(None, "is broken", id="missing"),
        pytest.param("15", "is of PostgreSQL 15", id="another major version"),
        pytest.param("18", "did not start", id="right version, nothing else"),
    ],
)
async def test_a_broken_data_folder_is_named_in_one_sentence(tmp_path, version, sentence):
    """The person who starts it reads what is wrong and where; nothing is left running, nothing overwritten."""
    data = tmp_path / "postgres"
    data.mkdir(mode=0o700)
    if version is not None:
        (data / "PG_VERSION").write_text(version)
    before = sorted(data.iterdir())
    running = psutil.Process().children()

    with pytest.raises(EmbeddedError, match=sentence) as refused:
        await Embedded.start(tmp_path)

    assert "\n" not in str(refused.value)
    assert sorted(data.iterdir()) == before
    assert not (tmp_path / "runtime").exists()
    assert psutil.Process().children() == running


async def test_a_folder_that_cannot_be_written_is_named_in_one_sentence(tmp_path):
    """A file where the folder should be stands for every folder that cannot be made."""
    (tmp_path / "file").touch()

    with pytest.raises(EmbeddedError, match="Cannot write to the data folder"):
        await Embedded.start(tmp_path / "file" / "data")


async def test_a_path_too_long_for_a_socket_is_named_in_one_sentence(tmp_path, monkeypatch):
    """A socket's address has 107 bytes; the person who starts it reads what to set."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))

    with pytest.raises(EmbeddedError, match="set TMPDIR"):
        await Embedded.start(tmp_path / "data")

    assert not list(deep.iterdir())


async def test_the_claim_of_a_process_that_is_no_postgres_is_removed(tmp_path):
    """After a crash and a reboot the noted number may be somebody else's; that process is left alone."""
    stores = await Embedded.start(tmp_path)
    claim = tmp_path / "postgres" / "postmaster.pid"
    lines = claim.read_text().splitlines()
    await stores.stop()
    with subprocess.Popen(["sleep", "60"]) as bystander:
        claim.write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n")

        stores = await Embedded.start(tmp_path)
        unharmed = bystander.poll() is None
        await stores.stop()
        bystander.kill()

    assert unharmed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change to another user")
async def test_root_runs_the_servers_as_somebody_else_below_a_private_folder(tmp_path):
    """PostgreSQL refuses root; the servers get no more of root's power than to look through folders."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)

    stores = await Embedded.start(private / "data")
    processes = [psutil.Process(child.pid) for child in (stores.postgres, stores.valkey) if child]
    users = {process.uids().effective for process in processes}
    kept = {effective(process.pid) for process in processes}
    await stores.stop()

    assert 0 not in users
    assert kept == {1 << 2}  # CAP_DAC_READ_SEARCH
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def effective(pid: int) -> int:
    """Return the effective capabilities of a process as the kernel's bit mask."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))


def test_a_package_that_is_missing_is_named():
    """Without the wheel the sentence says what installs it."""
    with pytest.raises(EmbeddedError, match="make setup"):
        package_folder("no_such_package")


async def test_children_are_out_of_reach_of_the_terminal(stores):
    """Ctrl-C hits a whole session of processes; the stores have sessions of their own, so that we can flush first."""
    sessions = {os.getsid(child.pid) for child in (stores.postgres, stores.valkey)}

    assert os.getsid(0) not in sessions
