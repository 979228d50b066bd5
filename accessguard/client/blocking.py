"""The blocking twin of `AccessGuard`, for threads: WSGI, scripts, signal handlers."""

from __future__ import annotations

import os
import threading
from time import monotonic
from types import TracebackType
from typing import Self
from urllib.parse import quote

import msgspec

from accessguard.client.breaker import Breaker
from accessguard.client.holding import Holding, Question
from accessguard.client.line import Line, Listener, LostError
from accessguard.client.model import (
    REFUSED,
    Check,
    ClientError,
    Login,
    LoginAnswer,
    Settings,
    Tally,
    Told,
    Verdict,
    unknown_login,
)
from accessguard.client.model import unknown as unknown_verdict
from accessguard.client.wire import Heads, Reply, accepted, address, logged_in, verdict, written


class Turn:
    """One question that a thread asks, and others wait for."""

    __slots__ = ("epoch", "found", "landed")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.landed = threading.Event()
        self.found: Verdict | None = None


class BlockingAccessGuard:
    """Asks the service from any thread; opens nothing before it is first used, and anew in a forked process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tally = Tally()
        self._at = address(settings.address)
        self._heads = Heads(self._at, settings.token, settings.tenant)
        self._holding = Holding(settings.held if settings.hold else 0, monotonic, self.tally)
        self._answers = self._holding.answers
        self._breaker = Breaker(settings.failures, settings.pause_ms / 1000, monotonic)
        self._unknown = unknown_verdict(settings.on_unknown)
        self._line = Line(self._at, settings.connections)
        self._turns: dict[Question, Turn] = {}
        self._lock = threading.Lock()
        self._listener: Listener | None = None
        self._process = 0

    def __enter__(self) -> Self:
        """Nothing to wait for."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def check(
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
        self._begin()
        turn, mine = self._turn(asked)
        if mine:
            return self._lead(asked, turn)
        turn.landed.wait(self.settings.deadline_ms / 1000)
        return turn.found or self._unknown

    def login(self, login: Login) -> LoginAnswer:
        """Record one login attempt; sent again when its answer was lost, as its `attempt_id` makes that safe.

        Raises ClientError for one that the service does not accept (4xx).
        """
        reply = self._call("/v1/logins", "/v1/logins", msgspec.json.encode(login))
        if reply is None or reply.status >= 500:
            self.tally.unknown += 1
            return unknown_login(self.settings.on_unknown)
        answer = logged_in(accepted(reply), self.settings.on_unknown)
        for session in (login.session_id, None if answer.session is None else answer.session.id):
            if session is not None:
                self._holding.drop_session(session)
        return answer

    def end(self, session_id: str, reason: str = "logout") -> None:
        """End a session, and hold nothing about it. Raises ClientError when that was not done; it may be done again."""
        self._holding.drop_session(session_id, ended=True)
        path = f"/v1/sessions/{quote(session_id, safe='')}/end"
        reply = self._call("/v1/sessions/{id}/end", path, msgspec.json.encode({"reason": reason}))
        self._holding.drop_session(session_id, ended=True)
        if reply is None:
            raise ClientError("The service did not answer.")
        accepted(reply)

    def close(self) -> None:
        """Close every connection that is idle, and the stream."""
        if self._listener is not None:
            self._listener.stop()
            self._listener = None
        self._line.close()
        self._process = 0

    def _begin(self) -> None:
        """Belong to this process: a server may have forked since."""
        if self._process == os.getpid():
            return
        with self._lock:
            if self._process == os.getpid():
                return
            if self._process:
                self._line.forget()
                self._turns.clear()
            if self.settings.follow:
                self._listener = Listener(self._at, self._heads, self._holding)
            self._process = os.getpid()

    def _turn(self, asked: Question) -> tuple[Turn, bool]:
        """Whoever asks this already since the last change, or a turn of one's own."""
        with self._lock:
            turn = self._turns.get(asked)
            if turn is not None and turn.epoch == self._holding.epoch:
                return turn, False
            turn = self._turns[asked] = Turn(self._holding.epoch)
            return turn, True

    def _lead(self, asked: Question, turn: Turn) -> Verdict:
        """Ask, and tell whoever waits."""
        try:
            turn.found = self._ask(asked, turn.epoch)
        finally:
            with self._lock:
                if self._turns.get(asked) is turn:
                    del self._turns[asked]
            turn.landed.set()
        return turn.found

    def _ask(self, asked: Question, epoch: int) -> Verdict:
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
        since = monotonic()
        self.tally.sent += 1
        reply = self._exchange("/v1/check", self._heads.checks((body,)), self.settings.deadline_ms, checks=1)
        if reply is not None and reply.status in {400, 413, 422}:
            self._breaker.succeeded()
            return REFUSED
        found = None if reply is None or reply.status != 200 else _verdict(reply.body)
        if found is None:
            if reply is not None:
                self._breaker.failed()
            self.tally.unknown += 1
            return self._unknown
        self._breaker.succeeded()
        self._holding.keep(asked, found, since=since, epoch=epoch)
        return found

    def _call(self, name: str, path: str, body: bytes) -> Reply | None:
        self._begin()
        reply = self._exchange(name, self._heads.post(path, body), self.settings.login_deadline_ms, checks=0)
        if reply is not None:
            (self._breaker.failed if reply.status >= 500 else self._breaker.succeeded)()
        return reply

    def _exchange(self, name: str, data: bytes, deadline_ms: int, *, checks: int) -> Reply | None:
        """One exchange, unless the breaker is open; None when nothing came, which the breaker knows by then."""
        if not self._breaker.lets():
            return None
        since = monotonic()
        reply: Reply | None
        try:
            reply = self._line.exchange(data, since + deadline_ms / 1000)
        except LostError:
            self._breaker.failed()
            reply = None
        if self.settings.told is not None:
            status = None if reply is None else reply.status
            self.settings.told(Told(call=name, checks=checks, status=status, seconds=monotonic() - since))
        return reply


def _verdict(body: bytes) -> Verdict | None:
    try:
        return verdict(body)
    except msgspec.DecodeError:
        return None
