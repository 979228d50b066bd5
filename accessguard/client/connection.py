"""One connection that is kept open, with one request on it at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from accessguard.client.model import Question, Told, Verdict
from accessguard.client.wire import Reader, Reply, WireError


class Flight:
    """One question on its way, and everybody who waits for its answer."""

    __slots__ = ("again", "asked", "due", "epoch", "landed", "since", "waiters")

    def __init__(self, asked: Question, since: float, due: float, epoch: int) -> None:
        self.asked = asked
        self.since = since
        self.due = due
        self.epoch = epoch
        self.again = True  # whether it may be sent once more
        self.landed = False
        self.waiters: list[asyncio.Future[Verdict]] = []


class Job:
    """One request: checks, which have `flights`, or any other call, whose `waiter` is told the reply."""

    __slots__ = ("again", "call", "data", "due", "flights", "since", "waiter")

    def __init__(self, call: str, data: bytes, since: float, due: float) -> None:
        self.call = call
        self.data = data
        self.since = since
        self.due = due
        self.flights: list[Flight] = []
        self.waiter: asyncio.Future[Reply | None] | None = None
        self.again = True  # whether it may be sent once more: every call of the client is safe to repeat

    def told(self, status: int | None, now: float) -> Told:
        """What the hook is told."""
        return Told(call=self.call, checks=len(self.flights), status=status, seconds=now - self.since)


class Connection(asyncio.Protocol):
    """Sends a job, and hands its reply, or None when it was lost, to `answered`."""

    __slots__ = ("_answered", "_reader", "_transport", "job", "open", "used")

    def __init__(self, answered: Callable[[Connection, Job | None, Reply | None], None]) -> None:
        self._answered = answered
        self._reader = Reader()
        self._transport: asyncio.Transport | None = None
        self.job: Job | None = None
        self.open = False
        self.used = False  # whether it has had an answer: then it may have been closed for its idleness

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self.open = True

    def send(self, job: Job) -> None:
        """Send a job; the connection has none."""
        self.job = job
        if self._transport is not None:
            self._transport.write(job.data)

    def data_received(self, data: bytes) -> None:
        """Read on; an answer that nobody asked for ends the connection."""
        try:
            reply = self._reader.feed(data)
        except WireError:
            self.end()
            return
        if reply is None:
            return
        job, self.job = self.job, None
        self.used = True
        if job is None or not reply.keep:
            self.open = False
            self.close()
        self._answered(self, job, reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say what was lost with it."""
        del exc
        self.open = False
        job, self.job = self.job, None
        self._answered(self, job, None)

    def close(self) -> None:
        """Close after what is written."""
        if self._transport is not None:
            self._transport.close()

    def end(self) -> None:
        """Close at once."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()
