"""Several workers under one roof: started, replaced when they die, renewed one by one, stopped together.

The supervisor answers no request itself. It holds the listening sockets, one for
each slot, so that what waits in the queue of one outlives the worker that died
or made way. It keeps no connection to a store, and loads nothing that it need not.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Final

import structlog

from accessguard.config import Config
from accessguard.crew import Condition, Hand, hire
from accessguard.errors import StartError
from accessguard.exposition import Scrapes
from accessguard.logs import set_up_logs
from accessguard.overseeing import RESTARTS, Overseer, overseen
from accessguard.ports import Ports, listen_admin, listening, make_runner

START_S: Final = 60.0
"""How long a worker may take until it answers."""
FIRST_REST_S: Final = 0.1
LONGEST_REST_S: Final = 10.0
STEADY_S: Final = 60.0
"""A worker that has answered for so long is replaced as quickly as at first when it dies."""
FLUSH_S: Final = 10.0
"""What a worker may take after its last answer, for the last flush and the pools, before it is killed."""
LOG: Final = structlog.get_logger("accessguard.supervisor")


class Supervisor:
    """Keeps one worker in each slot until `stop`."""

    def __init__(self, config: Config, ports: Ports, environ: Mapping[str, str]) -> None:
        self.scrapes = Scrapes()
        self.hands: list[Hand] = []
        self._config, self._ports, self._environ = config, ports, environ
        self._turns = [asyncio.Lock() for _ in ports.slots]
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        """Start a worker in each slot. Raises StartError, with what the first one says that cannot start."""
        first = [self._hire(slot) for slot in range(len(self._ports.slots))]
        for each in first:
            if not await each.ready(START_S):
                raise StartError(each.why or "A worker did not start; its log says why.")
        self._keepers = [asyncio.create_task(self._keep(each)) for each in first]

    async def renew(self) -> None:
        """Replace the workers one after the other, each by one that answers already.

        Ends early, with the old ones in place, when a new one does not start.
        """
        LOG.info("renewing")
        for slot in range(len(self._ports.slots)):
            async with self._turns[slot]:
                if self._stopping or not await self._renew(slot):
                    return
        LOG.info("renewed")

    async def stop(self) -> None:
        """Stop every worker in order; those that are not gone in time are killed."""
        self._stopping = True
        for each in self._keepers:
            each.cancel()
        for hand in self.hands:
            hand.stop()
        for port in self._ports.all:
            port.close()  # as the workers do: who comes now is refused at once, and not left to wait for the end
        loop = asyncio.get_running_loop()
        until = loop.time() + self._config.server.shutdown_s + FLUSH_S
        for hand in tuple(self.hands):
            if not await hand.gone(until - loop.time()):
                LOG.error("worker_killed", worker=hand.slot + 1)
                hand.kill()
                await hand.gone(FLUSH_S)

    async def _keep(self, hand: Hand) -> None:
        """Replace whoever works in this slot when they die, after a rest that doubles while they die young."""
        slot, rest_s = hand.slot, FIRST_REST_S
        while True:
            await hand.ended.wait()
            async with self._turns[slot]:
                current = self._current(slot)
                if current is None:
                    LOG.error("worker_died", worker=slot + 1, code=hand.code, why=hand.why)
                    rest_s = FIRST_REST_S if self._steady(hand) else min(2 * rest_s, LONGEST_REST_S)
                    current = await self._hired(slot, rest_s)
                    RESTARTS.labels("died").inc()
                    await self._settle(current)
            hand = current

    async def _renew(self, slot: int) -> bool:
        old = self._current(slot)
        try:
            new = self._hire(slot)
        except OSError as error:
            LOG.exception("renewal_failed", worker=slot + 1, why=str(error))
            return False
        if not await self._settle(new):
            LOG.error("renewal_failed", worker=slot + 1, why=new.why)
            return False
        RESTARTS.labels("renewed").inc()
        if old is not None:
            old.drain()
            server = self._config.server
            if not await old.gone(server.drain_s + server.shutdown_s + FLUSH_S):
                LOG.error("worker_killed", worker=slot + 1)
                old.kill()
        return True

    async def _settle(self, hand: Hand) -> bool:
        """Wait until a worker answers; one that does not come so far is ended."""
        if await hand.ready(START_S):
            return True
        if hand.condition is Condition.STARTING:
            hand.kill()
            await hand.gone(FLUSH_S)
        return False

    async def _hired(self, slot: int, rest_s: float) -> Hand:
        """Start a worker after a rest, and while the system has no room for it again after longer ones."""
        while True:
            await asyncio.sleep(rest_s)
            try:
                return self._hire(slot)
            except OSError as error:
                LOG.exception("worker_not_started", worker=slot + 1, why=str(error))
                rest_s = min(2 * rest_s, LONGEST_REST_S)

    def _hire(self, slot: int) -> Hand:
        hand = hire(slot, self._ports, self._environ, self._arrange)
        self.hands.append(hand)
        return hand

    def _current(self, slot: int) -> Hand | None:
        """Who works in a slot, or is about to."""
        there = (Condition.READY, Condition.STARTING)
        return next((each for each in self.hands if each.slot == slot and each.condition in there), None)

    def _steady(self, hand: Hand) -> bool:
        return hand.ready_at > 0 and asyncio.get_running_loop().time() - hand.ready_at > STEADY_S

    def _arrange(self) -> None:
        """Forget who has ended, and have one of the others accept for slots where nobody does."""
        for each in tuple(self.hands):
            if each.condition is Condition.ENDED:
                self.scrapes.bury(each.last.metrics)
                self.hands.remove(each)
        ready = [each for each in self.hands if each.answers]
        empty = tuple(sorted(set(range(len(self._ports.slots))) - {each.slot for each in ready}))
        for number, each in enumerate(ready):
            each.cover(empty if number == 0 and not self._stopping else ())


async def serve(
    config: Config,
    environ: Mapping[str, str],
    *,
    on_ready: Callable[[str], None] | None = None,
    renewable: bool = True,
) -> None:
    """Serve until a signal: one worker by itself, several under a supervisor. Raises StartError."""
    if config.server.workers > 1:
        await supervise(config, environ, on_ready=on_ready, renewable=renewable)
        return
    from accessguard.serving import serve as serve_alone  # noqa: PLC0415 -- a supervisor needs none of the service

    await serve_alone(config, on_ready=on_ready)


async def supervise(
    config: Config,
    environ: Mapping[str, str],
    *,
    on_ready: Callable[[str], None] | None = None,
    renewable: bool = True,
) -> None:
    """Serve with `server.workers` workers until a signal; on SIGHUP, renew them one after the other.

    Without `renewable`, SIGHUP is the end, as of any program whose terminal is closed.

    The workers read the configuration themselves, from the file and `environ`,
    and so anew after SIGHUP; where to listen is settled here, once.
    `on_ready` is told the address once requests are answered. Raises
    StartError for a port in use, or for what the first worker says.
    """
    set_up_logs(config.log.level)
    with _signals(renewable=renewable) as (stop, hangup), listening(config.server, config.server.workers) as ports:
        supervisor = Supervisor(config, ports, environ)
        watching = make_runner(overseen(Overseer(supervisor.scrapes, lambda: supervisor.hands, ports)), config)
        try:
            await listen_admin(watching, config)
            await _until(stop, supervisor.start())
            if not stop.is_set():
                port = ports.slots[0][0].getsockname()[1]
                if on_ready is not None:
                    on_ready(f"http://{config.server.host}:{port}")
                await _run(supervisor, stop, hangup)
        finally:
            await supervisor.stop()
            await watching.cleanup()


async def _run(supervisor: Supervisor, stop: asyncio.Event, hangup: asyncio.Event) -> None:
    while not stop.is_set():
        await _until(stop, hangup.wait())
        if hangup.is_set():
            hangup.clear()
            await _until(stop, supervisor.renew())


async def _until(stop: asyncio.Event, work: Coroutine[object, object, object]) -> None:
    """Do some work until it is done or `stop` is set, which cancels it; raises what it raises."""
    doing, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((doing, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        if not doing.done():
            doing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await doing
    if doing.done() and not doing.cancelled():
        doing.result()


@contextlib.contextmanager
def _signals(*, renewable: bool) -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """What SIGINT and SIGTERM set, and what SIGHUP sets when it renews."""
    loop = asyncio.get_running_loop()
    stop, hangup = asyncio.Event(), asyncio.Event()
    wanted = {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGHUP: hangup if renewable else stop}
    for number, event in wanted.items():
        loop.add_signal_handler(number, event.set)
    try:
        yield stop, hangup
    finally:
        for number in wanted:
            loop.remove_signal_handler(number)
