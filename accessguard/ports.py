"""Listening: the admin port, and sockets that outlive the worker that accepts from them."""

from __future__ import annotations

import contextlib
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from accessguard.config import Config, Server
from accessguard.errors import StartError

BACKLOG: Final = 1024
KEEPALIVE_S: Final = 75.0
MOST_UNSENT: Final = 65_536
"""Bytes that the kernel takes for a connection beyond what is on its way: else 4 MB wait there for whoever reads nothing, and cost a turn of some milliseconds."""


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """Listening sockets: of each slot its own on the service's port, and those that all slots share."""

    slots: tuple[tuple[socket.socket, ...], ...]
    shared: tuple[socket.socket, ...]

    @property
    def all(self) -> tuple[socket.socket, ...]:
        """Every one."""
        return (*(each for slot in self.slots for each in slot), *self.shared)


@contextlib.contextmanager
def listening(server: Server, slots: int) -> Iterator[Ports]:
    """Listen on the service's port once for each slot (SO_REUSEPORT), and on the Unix socket once for all.

    The kernel spreads new connections over the slots and queues them there,
    whether or not anybody accepts. A Unix socket cannot be spread. Raises StartError.
    """
    with contextlib.ExitStack() as stack:
        place = f"{server.host}:{server.port}"
        try:
            found = _listen_all(stack, server, slots)
            shared: tuple[socket.socket, ...] = ()
            if server.unix_socket is not None:
                place = server.unix_socket
                shared = (_listen_unix(stack, Path(place)),)
        except OSError as error:
            raise StartError(f"Cannot listen on {place}: {error.strerror or error}.") from error
        yield Ports(slots=found, shared=shared)


def _listen_all(stack: contextlib.ExitStack, server: Server, slots: int) -> tuple[tuple[socket.socket, ...], ...]:
    asked = socket.getaddrinfo(server.host or None, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    places = list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in asked))
    for family, host in places:
        _nobody_else(family, (host, server.port))
    found: list[tuple[socket.socket, ...]] = []
    port = server.port
    for _ in range(slots):
        own: list[socket.socket] = []
        for family, host in places:
            own.append(stack.enter_context(_listen(family, (host, port), reuse_port=True)))
            port = own[0].getsockname()[1]
        found.append(tuple(own))
    return tuple(found)


def _nobody_else(family: int, address: tuple[str, int]) -> None:
    """Raise OSError for a port in use, which SO_REUSEPORT would share with another service of the same user."""
    _listen(family, address, reuse_port=False).close()


def _listen(family: int, address: tuple[str, int], *, reuse_port: bool) -> socket.socket:
    made = socket.create_server(address, family=family, backlog=BACKLOG, reuse_port=reuse_port)
    keep_little(made)
    return made


def keep_little(listening: socket.socket) -> None:
    """Let the kernel take no more than `MOST_UNSENT` for a connection that is accepted from now on, where it can (Linux)."""
    if (option := getattr(socket, "TCP_NOTSENT_LOWAT", None)) is not None:
        listening.setsockopt(socket.IPPROTO_TCP, option, MOST_UNSENT)


def _listen_unix(stack: contextlib.ExitStack, path: Path) -> socket.socket:
    """Listen on a path, in place of a socket that was left there; the path goes with the stack."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
    made = stack.enter_context(socket.socket(socket.AF_UNIX))
    made.bind(str(path))
    stack.callback(path.unlink, missing_ok=True)
    made.listen(BACKLOG)
    return made


def make_runner(app: web.Application, config: Config) -> web.AppRunner:
    """An application that is stopped in `server.shutdown_s`."""
    return web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=config.server.shutdown_s,
        keepalive_timeout=KEEPALIVE_S,
    )


async def listen_admin(runner: web.AppRunner, config: Config) -> None:
    """Answer on the admin port. Raises StartError."""
    server = config.server
    await runner.setup()
    try:
        await web.TCPSite(runner, server.admin_host, server.admin_port, backlog=BACKLOG).start()
    except OSError as error:
        place = f"{server.admin_host}:{server.admin_port}"
        raise StartError(f"Cannot listen on {place}: {error.strerror or error}.") from error
