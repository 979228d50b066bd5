"""One of several workers: it accepts from sockets that its supervisor holds, and does what that says."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import socket
import sys
from collections.abc import AsyncIterator
from typing import Final

import structlog
from prometheus_client import generate_latest

from accessguard import __version__
from accessguard.api.context import Context
from accessguard.app import open_parts
from accessguard.config import Config
from accessguard.control import Berth, Do, Link, Order, Report, Say
from accessguard.errors import StartError
from accessguard.metrics import REGISTRY
from accessguard.serving import LULL_S, Door, calm_collector, set_up, stopping_on_signals, tracing

LOG: Final = structlog.get_logger("accessguard")

TOGETHER_S: Final = 0.1
"""How long nobody is told yet that a connection ends: who comes back at once would wait where another worker that is
told to stop as well still seems to listen."""

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

ToSupervisor = Link[Report, Order]


class Worker:
    """What answers while it is in its berth; `gone` is set when the supervisor has ended."""

    def __init__(self, berth: Berth, context: Context, config: Config, link: ToSupervisor) -> None:
        self._slots = [[_own(number) for number in slot] for slot in berth.slots]
        self._shared = [_own(number) for number in berth.shared]
        self._own = berth.slot
        self._context, self._config, self._link = context, config, link
        self._door = Door(context, config)
        self._covered: dict[int, list[asyncio.Server]] = {}
        self._linger_s = min(LULL_S, config.server.shutdown_s)
        self._leave = asyncio.Event()
        self._telling: set[asyncio.Task[None]] = set()

    async def work(self, stop: asyncio.Event) -> None:
        """Answer until it is told to make way, or `stop` is set; then finish what is under way."""
        try:
            await self._door.set_up()
            await self._door.accept((*self._slots[self._own], *self._shared))
            calm_collector()
            LOG.info("serving", version=__version__, worker=self._own + 1)
            self._link.tell(Report(say=Say.READY))
            listener = asyncio.create_task(self._obey(stop))
            await _first(stop, self._leave)
            self._leave.set()
            LOG.info("stopping", worker=self._own + 1)
            self._let_go()
            await self._door.shut()
            await asyncio.sleep(TOGETHER_S)
            await self._door.make_way(self._linger_s, stop=None if stop.is_set() else stop)
            listener.cancel()
        finally:
            await self._door.close()

    async def tell_state(self) -> None:
        """Say which part is up, and what has been counted."""
        parts = await self._context.ready.parts()
        ready = self._context.ready
        ready.measure()
        told = generate_latest(REGISTRY).decode()
        self._link.tell(Report(say=Say.STATE, parts=parts, metrics=told, pending=ready.pending))

    def _let_go(self) -> None:
        """Close what is inherited: where nobody has it any more, callers are refused at once, and not left to wait."""
        for each in (*(each for slot in self._slots for each in slot), *self._shared):
            each.close()

    def _tell_state(self) -> None:
        """Say it when it is known; meanwhile other words are heard."""
        telling = asyncio.create_task(self.tell_state())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _obey(self, stop: asyncio.Event) -> None:
        """Do what the supervisor says; without one, stop."""
        while (order := await self._link.hear()) is not None:
            match order.do:
                case Do.CALL:
                    self._link.tell(Report(say=Say.HERE))
                case Do.STATE:
                    self._tell_state()
                case Do.COVER:
                    await self._cover(order.slots)
                case Do.DRAIN:
                    self._linger_s = self._config.server.drain_s
                    self._leave.set()
        stop.set()

    async def _cover(self, slots: tuple[int, ...]) -> None:
        """Accept from these slots, too, whose own workers are not there, and from no other."""
        if self._leave.is_set():
            return
        for each in set(self._covered) - set(slots):
            self._door.leave(self._covered.pop(each))
        for each in set(slots) - set(self._covered) - {self._own}:
            self._covered[each] = await self._door.accept(self._slots[each])


def end_with_the_supervisor() -> None:
    """Have the kernel wake this process when the supervisor ends, should it be stopped then, to find out and end as well.

    A stopped one would keep its port, and with it the connections of whoever comes, for as long as it is stopped. No
    SIGKILL: one that works finishes what is under way.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGCONT), 0, 0, 0)


async def work(config: Config, berth: Berth) -> None:
    """Be a worker until a signal, the supervisor's word or its end. A start that fails is told to the supervisor."""
    end_with_the_supervisor()
    set_up(config)
    stop = asyncio.Event()
    async with _linked(berth) as link:
        with stopping_on_signals(stop):
            try:
                with tracing(config):
                    await _work(config, berth, link, stop)
            except StartError as error:
                link.tell(Report(say=Say.FAILED, why=str(error)))


async def _work(config: Config, berth: Berth, link: ToSupervisor, stop: asyncio.Event) -> None:
    parts = await open_parts(config)
    async with parts.running() as context:
        worker = Worker(berth, context, config, link)
        await worker.work(stop)
    context.ready.measure()
    link.tell(Report(say=Say.STATE, metrics=generate_latest(REGISTRY).decode()))


@contextlib.asynccontextmanager
async def _linked(berth: Berth) -> AsyncIterator[ToSupervisor]:
    link: ToSupervisor = await Link.over(_own(berth.control), Order)
    try:
        yield link
    finally:
        await link.close()


def _own(number: int) -> socket.socket:
    """A socket of the supervisor's, which no program that this worker starts is to hold any longer than it does."""
    found = socket.socket(fileno=number)
    found.set_inheritable(False)
    return found


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waiting = [asyncio.create_task(each.wait()) for each in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()
