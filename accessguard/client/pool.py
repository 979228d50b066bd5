"""As many connections as are allowed, opened when they are needed."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from accessguard.client.connection import Connection, Job
from accessguard.client.wire import Address, Reply

MOST_QUEUED = 1_000
"""Calls that wait for a connection; checks wait in the client, where they come to one request."""

CONNECT_S: Final = 1.0
"""How long a packet that nobody answers may keep a connection's place."""


class Owner(Protocol):
    """Who asks: the client, and whatever a test puts in its place."""

    def answered(self, job: Job, reply: Reply | None, *, used: bool) -> bool:
        """A job came back, or was lost; whether its connection may be used on."""

    def more(self) -> None:
        """A connection is free."""

    def unreachable(self) -> None:
        """No connection can be made, and none is open."""


class Pool:
    """The connections of one client on one loop."""

    def __init__(self, at: Address, most: int, owner: Owner) -> None:
        self._at = at
        self._most = most
        self._owner = owner
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._jobs: deque[Job] = deque()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to this loop; those of another are its own to close."""
        self._loop = loop
        self._idle.clear()
        self._all.clear()
        self._opening.clear()
        self._jobs.clear()

    def free(self) -> Connection | None:
        """A connection to send a job on; None: one will be free, or is being opened."""
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        if self._loop is not None and len(self._all) + len(self._opening) < self._most:
            task = self._loop.create_task(self._open(self._loop))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        return None

    def queue(self, job: Job) -> None:
        """Send a job when a connection is free; a full queue gives it up."""
        if len(self._jobs) >= MOST_QUEUED:
            self._owner.answered(job, None, used=False)
            return
        connection = self.free()
        if connection is None:
            self._jobs.append(job)
        else:
            connection.send(job)

    def abandon(self, job: Job) -> None:
        """Wait no longer for a job; a connection that still owes its answer is closed."""
        if job in self._jobs:
            self._jobs.remove(job)
        for connection in [one for one in self._all if one.job is job]:
            connection.job = None
            connection.end()

    def end_overdue(self, now: float) -> None:
        """Close the connections whose answer has not come in time: it might be taken for another's."""
        for connection in [one for one in self._all if one.job is not None and one.job.due <= now]:
            connection.end()

    def close(self) -> None:
        """Close everything."""
        for task in self._opening:
            task.cancel()
        for connection in list(self._all):
            connection.job = None
            connection.end()
        self._idle.clear()
        self._all.clear()
        jobs, self._jobs = self._jobs, deque()
        for job in jobs:
            self._owner.answered(job, None, used=False)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        made = Connection(self._answered)
        try:
            async with asyncio.timeout(CONNECT_S):
                if self._at.path is not None:
                    await loop.create_unix_connection(lambda: made, self._at.path)
                else:
                    await loop.create_connection(lambda: made, self._at.host, self._at.port)
        except OSError:
            made.open = False
        if loop is not self._loop:
            made.end()
        elif made.open:
            self._all.add(made)
            self._release(made)
        elif not self._all:
            self._nobody()

    def _nobody(self) -> None:
        jobs, self._jobs = self._jobs, deque()
        for job in jobs:
            self._owner.answered(job, None, used=False)
        self._owner.unreachable()

    def _answered(self, connection: Connection, job: Job | None, reply: Reply | None) -> None:
        """Use the connection for what waits, then tell whose job it was."""
        if connection not in self._all:
            return  # one that was closed, or of another loop
        used = connection.used
        if not connection.open:
            self._all.discard(connection)
        if job is not None and not self._owner.answered(job, reply, used=used):
            connection.end()
        if connection.open:
            self._release(connection)
        elif self._jobs:
            self.free()
        else:
            self._owner.more()

    def _release(self, connection: Connection) -> None:
        if self._jobs:
            connection.send(self._jobs.popleft())
            return
        self._idle.append(connection)
        self._owner.more()
