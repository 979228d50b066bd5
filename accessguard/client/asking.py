"""The asynchronous client: `AccessGuard`."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from types import TracebackType
from typing import Self
from urllib.parse import quote

import msgspec

from accessguard.client.breaker import Breaker
from accessguard.client.connection import Flight, Job
from accessguard.client.following import Following
from accessguard.client.holding import Holding, Question
from accessguard.client.model import (
    REFUSED,
    Check,
    ClientError,
    Login,
    LoginAnswer,
    Settings,
    Tally,
    Verdict,
    unknown,
    unknown_login,
)
from accessguard.client.pool import Pool
from accessguard.client.wire import (
    MOST_CHECKS,
    Heads,
    Reply,
    accepted,
    address,
    logged_in,
    results,
    verdict,
    written,
)


class AccessGuard:
    """Asks the service; belongs to the loop on which it is first used, and opens nothing before.

    `async with` it, or `close()` it at the end.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tally = Tally()
        self._at = address(settings.address)
        self._heads = Heads(self._at, settings.token, settings.tenant)
        self._holding = Holding(settings.held if settings.hold else 0, monotonic, self.tally)
        self._answers = self._holding.answers
        self._breaker = Breaker(settings.failures, settings.pause_ms / 1000, monotonic)
        self._deadline_s = settings.deadline_ms / 1000
        self._unknown = unknown(settings.on_unknown)
        self._flights: dict[Question, Flight] = {}
        self._turn: list[Flight] = []
        self._airborne: deque[Flight] = deque()  # in the order of their deadlines
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asked_flush = False
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
        return await self._ask(asked)

    async def login(self, login: Login) -> LoginAnswer:
        """Record one login attempt; sent again when its answer was lost, as its `attempt_id` makes that safe.

        Raises ClientError for one that the service does not accept (4xx).
        """
        reply = await self._call("/v1/logins", "/v1/logins", msgspec.json.encode(login))
        if reply is None or reply.status >= 500:
            self.tally.unknown += 1
            return unknown_login(self.settings.on_unknown)
        answer = logged_in(accepted(reply), self.settings.on_unknown)
        for session in (login.session_id, None if answer.session is None else answer.session.id):
            if session is not None:
                self._holding.drop_session(session)
        return answer

    async def end(self, session_id: str, reason: str = "logout") -> None:
        """End a session, and hold nothing about it. Raises ClientError when that was not done; it may be done again."""
        self._holding.drop_session(session_id, ended=True)
        path = f"/v1/sessions/{quote(session_id, safe='')}/end"
        reply = await self._call("/v1/sessions/{id}/end", path, msgspec.json.encode({"reason": reason}))
        self._holding.drop_session(session_id, ended=True)
        if reply is None:
            raise ClientError("The service did not answer.")
        accepted(reply)

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
        """Belong to this loop; what was left on one that has ended is forgotten."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._timer, self._asked_flush = loop, None, False
            self._flights.clear()
            self._airborne.clear()
            self._turn.clear()
            self._pool.begin(loop)
            if self.settings.follow:
                self._following = Following(self._at, self._heads, self._holding)
                self._following.start(loop)
        return loop

    async def _ask(self, asked: Question) -> Verdict:
        loop = self._loop
        if loop is None or loop is not asyncio.get_running_loop():
            loop = self._begin()
        flight = self._flights.get(asked)
        if (
            flight is None or flight.epoch != self._holding.epoch
        ):  # what was asked before a change does not answer after it
            if not self._breaker.lets():
                self.tally.unknown += 1
                return self._unknown
            flight = self._start(asked, loop)
        waiter: asyncio.Future[Verdict] = loop.create_future()
        flight.waiters.append(waiter)
        return await waiter

    def _start(self, asked: Question, loop: asyncio.AbstractEventLoop) -> Flight:
        """Put a question among those that leave at the end of this turn of the loop."""
        session_id, ip, user_agent, device_token, activity, resource, product_id = asked
        body = written(
            Check(
                session_id=session_id,
                ip=ip,
                user_agent=user_agent,
                device_token=device_token,
                activity=activity,
                resource=resource,
                product_id=product_id,
            )
        )
        now = monotonic()
        flight = Flight(asked, body, now, now + self._deadline_s, self._holding.epoch)
        self._flights[asked] = flight
        self._turn.append(flight)
        self._airborne.append(flight)
        if not self._asked_flush:
            self._asked_flush = True
            loop.call_soon(self._flush)
        if self._timer is None:
            self._timer = loop.call_later(self._deadline_s, self._overdue)
        return flight

    def _flush(self) -> None:
        """Send what waits, as far as connections are free; the rest leaves together when one is."""
        self._asked_flush = False
        while self._turn and (connection := self._pool.free()) is not None:
            connection.send(self._next())

    def _next(self) -> Job:
        some, self._turn = self._turn[:MOST_CHECKS], self._turn[MOST_CHECKS:]
        data = self._heads.checks([flight.body for flight in some])
        job = Job("/v1/check" if len(some) == 1 else "/v1/checks", data, some[0].since, some[0].due)
        job.flights = some
        self.tally.sent += len(some)
        return job

    def more(self) -> None:
        """A connection is free."""
        if self._turn:
            self._flush()

    async def _call(self, name: str, path: str, body: bytes) -> Reply | None:
        """One exchange that is safe to repeat; None when nothing came in time."""
        loop = self._begin()
        if not self._breaker.lets():
            return None
        now, seconds = monotonic(), self.settings.login_deadline_ms / 1000
        job = Job(name, self._heads.post(path, body), now, now + seconds)
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

    def answered(self, job: Job, reply: Reply | None, *, used: bool) -> None:
        """Give everybody their answer; `used`: a lost connection had answered before, so that the job may be sent again."""
        self._told(job, reply)
        if job.waiter is not None:
            self._returned(job, job.waiter, reply, used=used)
        elif reply is not None and reply.status == 200:
            self._settle(job, reply)
        elif reply is None and used:
            self._again(job)
        elif reply is not None and reply.status in {400, 413, 422}:
            self._breaker.succeeded()
            self._one_by_one(job)
        else:
            self._breaker.failed()
            self._give_up(job)

    def _returned(self, job: Job, waiter: asyncio.Future[Reply | None], reply: Reply | None, *, used: bool) -> None:
        if reply is None and used and job.again:
            job.again = False
            self._pool.queue(job)
            return
        answered = reply is not None and reply.status < 500
        (self._breaker.succeeded if answered else self._breaker.failed)()
        if not waiter.done():
            waiter.set_result(reply)

    def _told(self, job: Job, reply: Reply | None) -> None:
        if self.settings.told is not None:
            self.settings.told(job.told(None if reply is None else reply.status, monotonic()))

    def _settle(self, job: Job, reply: Reply) -> None:
        try:
            found = (verdict(reply.body),) if len(job.flights) == 1 else results(reply.body).results
        except msgspec.DecodeError:
            found = ()
        if len(found) != len(job.flights):
            self._breaker.failed()
            self._give_up(job)
            return
        self._breaker.succeeded()
        for flight, each in zip(job.flights, found, strict=True):
            if each.ttl_ms:
                self._holding.keep(flight.asked, each, since=flight.since, epoch=flight.epoch)
            self._land(flight, each)

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
                self._pool.queue(self._alone(flight))

    def _alone(self, flight: Flight) -> Job:
        job = Job("/v1/check", self._heads.checks([flight.body]), flight.since, flight.due)
        job.flights = [flight]
        return job

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
