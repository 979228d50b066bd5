"""What the asynchronous client and its blocking twin stand on: both are told the same, and remember it alike."""

from __future__ import annotations

from time import monotonic

from accessguard.client.breaker import Breaker
from accessguard.client.holding import Holding
from accessguard.client.model import ClientError, Login, LoginAnswer, Settings, Tally, unknown, unknown_login
from accessguard.client.wire import Heads, Reply, accepted, address, logged_in


class Ground:
    """The state that both clients have; nothing of it is of a loop or a thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tally = Tally()
        self._at = address(settings.address)
        self._heads = Heads(self._at, settings.token, settings.tenant)
        self._holding = Holding(settings.held if settings.hold else 0, monotonic, self.tally)
        self._answers = self._holding.answers
        self._breaker = Breaker(settings.failures, settings.pause_ms / 1000, monotonic)
        self._deadline_s = settings.deadline_ms / 1000
        self._login_deadline_s = settings.login_deadline_ms / 1000
        self._unknown = unknown(settings.on_unknown)

    def _logged_in(self, login: Login, reply: Reply | None) -> LoginAnswer:
        """What a login came to; nothing is held on of its session. Raises ClientError for one that is not accepted (4xx)."""
        if reply is None or reply.status >= 500:
            self.tally.unknown += 1
            return unknown_login(self.settings.on_unknown)
        answer = logged_in(accepted(reply), self.settings.on_unknown)
        self.tally.unknown += answer.unknown
        for session_id in (login.session_id, None if answer.session is None else answer.session.id):
            if session_id is not None:
                self._holding.drop_session(session_id)
        return answer

    def _ended(self, session_id: str, reply: Reply | None) -> None:
        """Hold nothing about a session that was to be ended. Raises ClientError when that was not done."""
        self._holding.drop_session(session_id, ended=True)
        if reply is None:
            raise ClientError("The service did not answer.")
        accepted(reply)
