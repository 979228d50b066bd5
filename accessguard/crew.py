"""A worker's process as its supervisor sees it: started, told things, waited for."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from accessguard.control import Berth, Do, Link, Order, Report, Say
from accessguard.ports import Ports

STATE_S: Final = 2.0
"""How long a worker may take to tell its state: it asks PostgreSQL for a second at most."""
CALL_S: Final = 1.0
MOST_SILENT: Final = 3
"""Calls without an answer after which others accept in its place: a full collection or a burst of work is over by then."""
MOST_LOST: Final = 10
"""Calls without an answer after which it is ended: it has hung, and so has everybody whose connection it holds. Calls
are counted, not seconds, so that what held up the supervisor as well counts for nothing."""

NONE: Final = Report(say=Say.STATE)


class Condition(StrEnum):
    """Where a worker stands: on its way, answering, making way for another, or not there."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    ENDED = "ended"


class Hand:
    """One worker process; built by `hire`. `last` is the last state it has told, with metrics of its whole life."""

    def __init__(self, slot: int, process: subprocess.Popen[bytes], end: socket.socket, on_change: Callable[[], None]):
        self.slot = slot
        self.condition = Condition.STARTING
        self.covers: tuple[int, ...] = ()
        self.last = NONE
        self.why = ""
        self.settled = asyncio.Event()
        self.ended = asyncio.Event()
        self.ready_at = 0.0
        self._unheard = 0
        self._process = process
        self._end = end
        self._on_change = on_change
        self._link: Link[Order, Report] | None = None
        self._told = asyncio.Event()
        self._life = asyncio.create_task(self._live())
        self._calls: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, minus the signal that ended it; None while it runs."""
        return self._process.returncode

    @property
    def answers(self) -> bool:
        """Whether it is ready, and has said so lately."""
        return self.condition is Condition.READY and self._unheard < MOST_SILENT

    async def ready(self, within_s: float) -> bool:
        """Wait until it answers; False when it has ended, or has not come so far in time."""
        await _in_time(self.settled, within_s)
        return self.condition is Condition.READY

    async def gone(self, within_s: float) -> bool:
        """Wait for its end."""
        return await _in_time(self.ended, within_s)

    async def state(self) -> Report | None:
        """What it says of itself now; None when it does not answer in time."""
        if self.condition is not Condition.READY:
            return None
        self._told.clear()
        self.tell(Order(do=Do.STATE))
        return self.last if await _in_time(self._told, STATE_S) else None

    def tell(self, order: Order) -> None:
        """Say something to it."""
        if self._link is not None:
            self._link.tell(order)

    def cover(self, slots: tuple[int, ...]) -> None:
        """Let it answer for these slots besides its own."""
        if slots != self.covers:
            self.covers = slots
            self.tell(Order(do=Do.COVER, slots=slots))

    def drain(self) -> None:
        """Let it make way."""
        self._become(Condition.DRAINING)
        self.tell(Order(do=Do.DRAIN))

    def stop(self) -> None:
        """Ask it to stop in order."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    async def _live(self) -> None:
        """Hear what it says until it has ended."""
        self._link = await Link.over(self._end, Report)
        while (report := await self._link.hear()) is not None:
            self._hear(report)
        await _exited(self._process)
        await self._link.close()
        if self._calls is not None:
            self._calls.cancel()
        self._become(Condition.ENDED)
        self.settled.set()
        self.ended.set()

    async def _call(self) -> None:
        """Call it every second until it makes way; end it when it does not answer."""
        while self.condition is Condition.READY and self._unheard < MOST_LOST:
            self._unheard += 1
            self.tell(Order(do=Do.CALL))
            await asyncio.sleep(CALL_S)
            if self._unheard == MOST_SILENT:
                self._on_change()
        if self.condition is Condition.READY:
            self.why = f"It did not answer for {MOST_LOST * CALL_S:.0f} s."
            self.kill()

    def _hear(self, report: Report) -> None:
        silent, self._unheard = self._unheard >= MOST_SILENT, 0
        if silent:
            self._on_change()
        match report.say:
            case Say.READY:
                self.ready_at = asyncio.get_running_loop().time()
                self._become(Condition.READY)
                self.settled.set()
                self._calls = asyncio.create_task(self._call())
            case Say.FAILED:
                self.why = report.why
            case Say.STATE:
                self.last = report
                self._told.set()

    def _become(self, condition: Condition) -> None:
        self.condition = condition
        self._on_change()


def hire(slot: int, ports: Ports, environ: Mapping[str, str], on_change: Callable[[], None]) -> Hand:
    """Start a worker for a slot; `on_change` is called when its condition changes.

    It is a program of its own, not a fork, so that it may be of another release
    than its supervisor; a session of its own, so that Ctrl-C reaches the
    supervisor alone. Raises OSError when the system has no room for it.
    """
    ours, theirs = socket.socketpair()
    try:
        berth = Berth(
            slot=slot,
            slots=tuple(tuple(each.fileno() for each in own) for own in ports.slots),
            shared=tuple(each.fileno() for each in ports.shared),
            control=theirs.fileno(),
        )
        process = subprocess.Popen(
            (sys.executable, "-m", "accessguard", "worker", msgspec.json.encode(berth).decode()),
            stdin=subprocess.DEVNULL,
            pass_fds=[each.fileno() for each in (*ports.all, theirs)],
            env=dict(environ),
            start_new_session=True,
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return Hand(slot, process, ours, on_change)


async def _exited(process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has ended, whose code is known afterwards."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    number = os.pidfd_open(process.pid)  # not reaped yet, so that the id is still its own
    loop.add_reader(number, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(number)
        os.close(number)
    process.wait()


async def _in_time(event: asyncio.Event, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
