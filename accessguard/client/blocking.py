"""The blocking twin of `AccessGuard`, for threads: WSGI, scripts, signal handlers."""

from __future__ import annotations

import os
import threading
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Self
from weakref import ref

from accessguard.client.ground import Ground
from accessguard.client.line import Line, Listener, LostError
from accessguard.client.model import REFUSED, Login, LoginAnswer, Question, Settings, Told, Verdict
from accessguard.client.wire import REFUSES, Call, Reply, of_end, of_login, verdicts


def _unlock(of: ref[BlockingAccessGuard]) -> None:
    """In a forked process: whoever held a lock is a thread of the parent's."""
    client = of()
    if client is not None:
        client.unlock()


class Turn:
    """One question that a thread asks, and others wait for."""

    __slots__ = ("epoch", "found", "landed")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.landed = threading.Event()
        self.found: Verdict | None = None


class BlockingAccessGuard(Ground):
    """Asks the service from any thread; opens nothing before it is first used, and anew in a forked process."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._line = Line(self._at, settings.connections)
        self._turns: dict[Question, Turn] = {}
        self._lock = threading.Lock()
        self._listener: Listener | None = None
        self._process = 0
        os.register_at_fork(after_in_child=partial(_unlock, ref(self)))

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
        turn.landed.wait(self._deadline_s)
        return turn.found or self._unknown

    def login(self, login: Login) -> LoginAnswer:
        """Record one login attempt; sent again when its answer was lost, as its `attempt_id` makes that safe.

        Raises ClientError for one that the service does not accept (4xx).
        """
        return self._logged_in(login, self._call(of_login(login)))

    def end(self, session_id: str, reason: str = "logout") -> None:
        """End a session, and hold nothing about it. Raises ClientError when that was not done; it may be done again."""
        self._holding.drop_session(session_id, ended=True)
        self._ended(session_id, self._call(of_end(session_id, reason)))

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
                self._forked()
            if self.settings.follow:
                self._listener = Listener(self._at, self._heads, self._holding)
            self._process = os.getpid()

    def unlock(self) -> None:
        """Begin with open locks, in a process in which nobody holds one."""
        self._lock = threading.Lock()
        self._holding.unlock()

    def _forked(self) -> None:
        """Leave connections and threads to the process they belong to: this one is its child."""
        self._line.close()
        self._turns.clear()
        if self._listener is not None:
            self._listener.forget()
            self._listener = None

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
        since = monotonic()
        self.tally.sent += 1
        reply = self._exchange("/v1/check", self._heads.checks((asked,)), self._deadline_s, checks=1)
        if reply is not None and reply.status in REFUSES:
            self._breaker.succeeded()
            return REFUSED
        found = None if reply is None or reply.status != 200 else verdicts(reply.body, (asked,))
        if found is None:
            self.tally.unknown += 1
            if reply is not None:
                self._breaker.failed()
                self._line.close()  # what says anything else is not asked again
            return self._unknown
        self._breaker.succeeded()
        self._holding.keep(asked, found[0], since=since, epoch=epoch)
        return found[0]

    def _call(self, call: Call) -> Reply | None:
        self._begin()
        data = self._heads.post(call.path, call.body)
        reply = self._exchange(call.name, data, self._login_deadline_s, checks=0)
        if reply is not None:
            (self._breaker.failed if reply.status >= 500 else self._breaker.succeeded)()
        return reply

    def _exchange(self, name: str, data: bytes, deadline_s: float, *, checks: int) -> Reply | None:
        """One exchange, unless the breaker is open; None when nothing came, which the breaker knows by then."""
        if not self._breaker.lets():
            return None
        since = monotonic()
        reply: Reply | None
        try:
            reply = self._line.exchange(data, since + deadline_s)
        except LostError:
            self._breaker.failed()
            reply = None
        if self.settings.told is not None:
            status = None if reply is None else reply.status
            self.settings.told(Told(call=name, checks=checks, status=status, seconds=monotonic() - since))
        return reply
