"""The asynchronous client: `AccessGuard`."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from types import TracebackType
from typing import Self

from accessguard.client.connection import Flight, Job
from accessguard.client.following import Following
from accessguard.client.ground import Ground
from accessguard.client.model import REFUSED, Login, LoginAnswer, Question, Settings, Verdict
from accessguard.client.pool import Pool
from accessguard.client.wire import MOST_CHECKS, REFUSES, Call, Reply, of_end, of_login, verdicts


class AccessGuard(Ground):
    """Asks the service; belongs to the loop on which it is first used, and opens nothing before.

    `async with` it, or `close()` it at the end.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._flights: dict[Question, Flight] = {}
        self._turn: list[Flight] = []
        self._airborne: deque[Flight] = deque()  # in the order of their deadlines
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asked_flush = False
        self._now = 0.0  # when this turn's first question was asked (monotonic seconds)
        self._pool = Pool(self._at, settings.connections, self)
        self._following: Following | None = None

    async def __aenter__(self) -> Self:
        """Nothing to wait for."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def check(
        self,
        session_id: str,
        ip: str,
        *,
        user_agent: str | None = None,
        device_token: str | None = None,
        activity: str | None = None,
        resource: str | None = None,
        product_id: str | None = None,
    ) -> Verdict:
        """Whether this session may go on: from memory, or within the deadline; `unknown` when the service does not say."""
        asked = (session_id, ip, user_agent, device_token, activity, resource, product_id)
        held = self._answers.get(asked)
        if held is not None and held[1] > monotonic():
            self.tally.held += 1
            return held[0]
        waiter = self._waiting(asked)
        return self._unknown if waiter is None else await waiter

    async def login(self, login: Login) -> LoginAnswer:
        """Record one login attempt; sent again when its answer was lost, as its `attempt_id` makes that safe.

        Raises ClientError for one that the service does not accept (4xx).
        """
        return self._logged_in(login, await self._call(of_login(login)))

    async def end(self, session_id: str, reason: str = "logout") -> None:
        """End a session, and hold nothing about it. Raises ClientError when that was not done; it may be done again."""
        self._holding.drop_session(session_id, ended=True)
        self._ended(session_id, await self._call(of_end(session_id, reason)))

    async def close(self) -> None:
        """Close every connection; who still waits is answered `unknown`."""
        if self._following is not None:
            await self._following.stop()
            self._following = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pool.close()
        for flight in list(self._airborne):
            self._land(flight, self._unknown)
        self._airborne.clear()
        self._loop = None

    def _begin(self) -> asyncio.AbstractEventLoop:
        """Belong to this loop; what was left on one that has ended is forgotten. Raises RuntimeError while another still runs."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._loop.is_running():
                raise RuntimeError("An AccessGuard belongs to one loop: make another for this one.")
            self._loop, self._timer, self._asked_flush = loop, None, False
            self._flights.clear()
            self._airborne.clear()
            self._turn.clear()
            self._pool.begin(loop)
            if self.settings.follow:
                self._following = Following(self._at, self._heads, self._holding)
                self._following.start(loop)
        return loop

    def _waiting(self, asked: Question) -> asyncio.Future[Verdict] | None:
        """What will be the answer; None when nobody is asked, as the service is taken to be out."""
        loop = self._loop
        if loop is None or loop is not asyncio.get_running_loop():
            loop = self._begin()
        flight = self._flights.get(asked)
        if flight is None or flight.epoch != self._holding.epoch:
            # what was asked before a change does not answer after it
            if not self._breaker.lets():
                self.tally.unknown += 1
                return None
            flight = self._start(asked, loop)
        waiter: asyncio.Future[Verdict] = loop.create_future()
        flight.waiters.append(waiter)
        return waiter

    def _start(self, asked: Question, loop: asyncio.AbstractEventLoop) -> Flight:
        """Put a question among those that leave at the end of this turn of the loop, and count from its beginning."""
        if not self._asked_flush:
            self._asked_flush = True
            self._now = monotonic()
            loop.call_soon(self._flush)
            if self._timer is None:
                self._timer = loop.call_later(self._deadline_s, self._overdue)
        flight = Flight(asked, self._now, self._now + self._deadline_s, self._holding.epoch)
        self._flights[asked] = flight
        self._turn.append(flight)
        self._airborne.append(flight)
        return flight

    def _flush(self) -> None:
        """Send what waits, as far as connections are free; the rest leaves together when one is."""
        self._asked_flush = False
        while self._turn and (connection := self._pool.free()) is not None:
            connection.send(self._next())

    def _next(self) -> Job:
        some, self._turn = self._turn[:MOST_CHECKS], self._turn[MOST_CHECKS:]
        self.tally.sent += len(some)
        return self._job(some)

    def _job(self, flights: list[Flight]) -> Job:
        data = self._heads.checks([flight.asked for flight in flights])
        job = Job("/v1/check" if len(flights) == 1 else "/v1/checks", data, flights[0].since, flights[0].due)
        job.flights = flights
        return job

    def more(self) -> None:
        """A connection is free."""
        if self._turn:
            self._flush()

    async def _call(self, call: Call) -> Reply | None:
        """One exchange that is safe to repeat; None when nothing came in time."""
        loop = self._begin()
        if not self._breaker.lets():
            return None
        now, seconds = monotonic(), self._login_deadline_s
        job = Job(call.name, self._heads.post(call.path, call.body), now, now + seconds)
        waiter: asyncio.Future[Reply | None] = loop.create_future()
        job.waiter = waiter
        self._pool.queue(job)
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except TimeoutError:
            self._breaker.failed()
            return None
        finally:
            self._pool.abandon(job)

    def answered(self, job: Job, reply: Reply | None, *, used: bool) -> bool:
        """Give everybody their answer, and say whether it was one: a connection that says anything else is not asked again.

        `used`: a lost connection had answered before, so that the job may be sent again.
        """
        if self.settings.told is not None:
            self.settings.told(job.told(None if reply is None else reply.status, monotonic()))
        if job.waiter is not None:
            self._returned(job, job.waiter, reply, used=used)
        elif reply is not None and reply.status == 200:
            return self._settle(job, reply)
        elif reply is None and used:
            self._again(job)
        elif reply is not None and reply.status in REFUSES:
            self._breaker.succeeded()
            self._one_by_one(job)
        else:
            self._breaker.failed()
            self._give_up(job)
        return True

    def _returned(self, job: Job, waiter: asyncio.Future[Reply | None], reply: Reply | None, *, used: bool) -> None:
        if reply is None and used and job.again:
            job.again = False
            self._pool.queue(job)
            return
        answered = reply is not None and reply.status < 500
        (self._breaker.succeeded if answered else self._breaker.failed)()
        if not waiter.done():
            waiter.set_result(reply)

    def _settle(self, job: Job, reply: Reply) -> bool:
        found = verdicts(reply.body, [flight.asked for flight in job.flights])
        if found is None:
            self._breaker.failed()
            self._give_up(job)
            return False
        self._breaker.succeeded()
        keep, land = self._holding.keep, self._land
        for flight, each in zip(job.flights, found, strict=True):
            if each.ttl_ms:
                keep(flight.asked, each, since=flight.since, epoch=flight.epoch)
            land(flight, each)
        airborne = self._airborne
        while airborne and airborne[0].landed:
            airborne.popleft()
        return True

    def _again(self, job: Job) -> None:
        """Send what was lost once more: a check changes nothing that a second one would not."""
        for flight in job.flights:
            if flight.again and not flight.landed:
                flight.again = False
                self._turn.append(flight)
            else:
                self._land(flight, self._unknown, counted=True)
        self.more()

    def _one_by_one(self, job: Job) -> None:
        """One of several questions is not accepted: ask each alone, so that it harms no other."""
        if len(job.flights) == 1:
            self._land(job.flights[0], REFUSED)
            return
        for flight in job.flights:
            if not flight.landed:
                self._pool.queue(self._job([flight]))

    def _give_up(self, job: Job) -> None:
        for flight in job.flights:
            self._land(flight, self._unknown, counted=True)

    def unreachable(self) -> None:
        """No connection can be made: who waits is told now."""
        self._breaker.failed()
        waiting, self._turn = self._turn, []
        for flight in waiting:
            self._land(flight, self._unknown, counted=True)

    def _land(self, flight: Flight, found: Verdict, *, counted: bool = False) -> None:
        if flight.landed:
            return
        flight.landed = True
        self.tally.unknown += counted
        if self._flights.get(flight.asked) is flight:
            del self._flights[flight.asked]
        for waiter in flight.waiters:
            if not waiter.done():
                waiter.set_result(found)

    def _overdue(self) -> None:
        """Give up what had its time, and look again when the next one has."""
        self._timer = None
        now = monotonic()
        late = 0
        while self._airborne and (self._airborne[0].landed or self._airborne[0].due <= now):
            flight = self._airborne.popleft()
            late += not flight.landed
            self._land(flight, self._unknown, counted=True)
        if late:
            self._breaker.failed()
            self._turn = [flight for flight in self._turn if not flight.landed]
            self._pool.end_overdue(now)
        if self._airborne and self._loop is not None:
            self._timer = self._loop.call_later(max(0, self._airborne[0].due - now), self._overdue)
