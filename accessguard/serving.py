"""One worker at work: its sockets, its signals, and how it makes way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import platform
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import structlog
from aiohttp import web

from accessguard import __version__
from accessguard.api.connections import Patience
from accessguard.api.context import Context
from accessguard.api.fastlane import FastLane, protocol
from accessguard.api.lane import PATIENCE, Lane
from accessguard.app import admin, open_parts, service
from accessguard.config import Config
from accessguard.devices.browser import recognise
from accessguard.errors import StartError
from accessguard.guard.upkeep import Job
from accessguard.logs import set_up_logs
from accessguard.metrics import BUILD, present_at_zero
from accessguard.ports import BACKLOG, KEEPALIVE_S, keep_little, listen_admin, make_runner
from accessguard.rules.model import Code, Effect, Mode, Outcome

LULL_S: Final = 1.0
"""How long a stop waits for the next request of connections that are open, to tell their callers not to come back."""
POLL_S: Final = 0.02
YOUNGEST: Final = 4_000
"""Objects that are there more than at the last collection, until the next: of 700 (Python's own) there is one in the midst of every list."""
MIDDLE: Final = 1
"""Collections of the youngest generation before the middle one is collected as well: after ten (Python's own) it would look at ten times as much."""
LOG: Final = structlog.get_logger("accessguard")


class Door:
    """Where callers come in: the application behind the fast lane, on as many sockets as it is told."""

    def __init__(self, context: Context, config: Config) -> None:
        self._limit = config.server.body_limit_bytes
        self._feeds = context.feeds
        self._runner = make_runner(service(context, body_limit_bytes=self._limit), config)
        said = config.limits
        patience = Patience(connections=said.connections, request_s=said.request_s, write_s=said.write_s)
        self._lane = Lane(context, body_limit_bytes=self._limit, keepalive_s=KEEPALIVE_S, patience=patience)
        self._open: list[asyncio.Server] = []

    async def set_up(self) -> None:
        """To be called once, before anything else."""
        await self._runner.setup()

    async def open(self, config: Config) -> str:
        """Listen where the configuration says; the address. Raises StartError."""
        listen, loop = config.server, asyncio.get_running_loop()
        place = f"{listen.host}:{listen.port}"
        try:
            first = await loop.create_server(
                self._factory(), listen.host, listen.port, backlog=BACKLOG, start_serving=False
            )
            self._open.append(first)
            for each in first.sockets:
                with each.dup() as same:
                    keep_little(same)
            await first.start_serving()
            if listen.unix_socket is not None:
                place = listen.unix_socket
                self._open.append(await loop.create_unix_server(self._factory(), place, backlog=BACKLOG))
        except OSError as error:
            raise StartError(f"Cannot listen on {place}: {error.strerror or error}.") from error
        return f"http://{listen.host}:{first.sockets[0].getsockname()[1]}"

    async def accept(self, sockets: Iterable[socket.socket]) -> list[asyncio.Server]:
        """Accept from sockets that listen already; they stay open when the servers that this returns are closed."""
        servers = [await self._server(each.dup()) for each in sockets]
        self._open += servers
        return servers

    def leave(self, servers: Iterable[asyncio.Server]) -> None:
        """No longer accept from these."""
        for each in servers:
            each.close()
            self._open.remove(each)

    async def shut(self) -> None:
        """Take no new connections; those that wait to be accepted are taken."""
        await asyncio.sleep(0)
        self.leave(tuple(self._open))

    async def make_way(self, within_s: float, *, stop: asyncio.Event | None = None) -> None:
        """Take no new connections, and let each open one have its next answer, which closes it.

        Ends when none is open, after `within_s`, or when `stop` is set.
        """
        await self.shut()
        self._lane.drain()
        self._feeds.stop()
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        # aiohttp tells nobody of a connection that ends
        while self._connections and loop.time() < until and not (stop and stop.is_set()):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        await self._part()

    async def close(self) -> None:
        """Finish what is under way, for `server.shutdown_s` at most, and close every connection."""
        self.leave(tuple(self._open))
        self._feeds.stop()
        await self._runner.cleanup()

    async def _part(self) -> None:
        """Close the connections that nobody uses, each right after a look at what has come: what crosses is answered."""
        for each in tuple(self._runner.server.connections) if self._runner.server is not None else ():
            await asyncio.sleep(0)
            if isinstance(each, FastLane):
                each.part()

    @property
    def _connections(self) -> bool:
        return self._runner.server is not None and bool(self._runner.server.connections)

    def _factory(self) -> Callable[[], FastLane]:
        return _protocol(self._runner, self._lane)

    async def _server(self, listening: socket.socket) -> asyncio.Server:
        loop, factory = asyncio.get_running_loop(), self._factory()
        if listening.family == socket.AF_UNIX:
            return await loop.create_unix_server(factory, sock=listening, backlog=BACKLOG)
        return await loop.create_server(factory, sock=listening, backlog=BACKLOG)


async def serve(config: Config, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve as the only worker until a signal, then finish what is under way.

    `on_ready` is told the address once requests are answered. Raises
    StartError for a port in use or a store out of reach.
    """
    set_up(config)
    parts = await open_parts(config)
    stop = asyncio.Event()
    with stopping_on_signals(stop), tracing(config):
        async with parts.running() as context:
            door, watching = Door(context, config), make_runner(admin(context), config)
            try:
                await listen_admin(watching, config)
                await door.set_up()
                address = await door.open(config)
                if on_ready is not None:
                    on_ready(address)
                calm_collector()
                LOG.info("serving", version=__version__)
                await stop.wait()
                LOG.info("stopping")
                await door.make_way(min(LULL_S, config.server.shutdown_s))
            finally:
                await door.close()
                await watching.cleanup()


def set_up(config: Config) -> None:
    """Make ready what a process has once: its logs, every series at zero, the tables of the recogniser."""
    set_up_logs(config.log.level)
    BUILD.info({"version": __version__, "python": platform.python_version()})
    every_series()
    recognise("")  # loads the recogniser's tables before the first request needs them


def every_series() -> None:
    """Let every series be there from the start."""
    present_at_zero(
        outcomes=list(Outcome),
        codes=list(Code),
        effects=list(Effect),
        modes=[Mode.OBSERVE, Mode.ENFORCE],
        jobs=list(Job),
    )


@contextlib.contextmanager
def tracing(config: Config) -> Iterator[None]:
    """Make spans until the end, where the configuration says where they go. Raises StartError without the extra."""
    if config.tracing.endpoint is None:
        yield
        return
    try:
        from accessguard.otel import switch_on  # noqa: PLC0415 -- an extra, which nothing else needs
    except ImportError as error:
        raise StartError("Traces want OpenTelemetry: pip install accessguard[otel].") from error
    off = switch_on(config.tracing)
    try:
        yield
    finally:
        off()


def calm_collector() -> None:
    """Keep full collections away from requests: none looks at what is there now, and they become rare.

    What a worker holds is hardly ever part of a cycle, but a full collection looks at
    all of it: 30 ms with ten thousand sessions in memory, in which no request is
    answered. It comes some three hundred times as seldom as Python would do it by itself.
    The youngest generation is collected more seldom than by Python itself, the middle one while it is small.
    """
    gc.collect()
    gc.freeze()
    _, _, old = gc.get_threshold()
    gc.set_threshold(YOUNGEST, MIDDLE, 300 * old)


def lane_protocol(
    runner: web.AppRunner, context: Context, *, body_limit_bytes: int, patience: Patience = PATIENCE
) -> Callable[[], FastLane]:
    """What answers a connection: the fast lane, and behind it the application of a runner that is set up."""
    return _protocol(
        runner, Lane(context, body_limit_bytes=body_limit_bytes, keepalive_s=KEEPALIVE_S, patience=patience)
    )


def _protocol(runner: web.AppRunner, lane: Lane) -> Callable[[], FastLane]:
    if runner.server is None:
        raise RuntimeError("the runner is not set up")
    return protocol(runner.server, lane, access_log=None)


@contextlib.contextmanager
def stopping_on_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` on SIGINT, SIGTERM, and SIGHUP, since there is nobody who could take over."""
    loop = asyncio.get_running_loop()
    endings = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for each in endings:
        loop.add_signal_handler(each, stop.set)
    try:
        yield
    finally:
        for each in endings:
            loop.remove_signal_handler(each)
