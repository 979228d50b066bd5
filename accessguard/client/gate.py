"""One request at the middleware: what a view may ask and tell about it."""

from __future__ import annotations

from typing import Literal, TypedDict

from msgspec import structs

from accessguard.client.asking import AccessGuard
from accessguard.client.blocking import BlockingAccessGuard
from accessguard.client.front import LONGEST_AGENT, Desk, Refusal, Seen
from accessguard.client.model import ClientError, Decision, Login, LoginAnswer, Reason, Verdict
from accessguard.client.naming import NOTHING, Named

NOBODYS = Verdict(decision=Decision.DENY, reason=Reason(code="unknown_session", message="Please log in."))


class Question(TypedDict):
    """What a check and a login both say of the browser."""

    user_agent: str | None
    device_token: str | None


class Gate:
    """What is known about a request.

    `verdict` is None on a public path. `refused` is why the answer of the
    platform is replaced, `cookies` are added to it. A login that was refused
    replaces the answer by itself, whatever the view goes on to do.
    """

    def __init__(self, desk: Desk, seen: Seen, named: Named) -> None:
        self._desk = desk
        self._seen = seen
        self._named = named
        self.session_id = desk.session(seen)
        self.verdict: Verdict | None = None
        self.refused: Verdict | LoginAnswer | None = None
        self.cookies: list[str] = []
        self.stopped = False  # whether `refused` is to be answered, or that there is no session

    def belongs(self, member_id: str | None) -> bool:
        """Whether the session is this member's; if not, the request is refused: two logins were mixed."""
        verdict = self.verdict
        if verdict is None or verdict.unknown or (verdict.allowed and verdict.member_id == member_id):
            return True
        self._stop(NOBODYS)
        return False

    @property
    def refusal(self) -> Refusal:
        """What to answer in place of the platform's answer."""
        return self._desk.refusal(self._seen, self.refused)

    def _stop(self, found: Verdict | LoginAnswer | None) -> None:
        self.stopped, self.refused = True, found

    def _question(self) -> Question:
        agent = self._seen.user_agent[:LONGEST_AGENT]
        return Question(user_agent=agent or None, device_token=self._desk.device_token(self._seen))

    def _login(self, member_id: str, session_id: str, method: str) -> Login:
        return structs.replace(self._attempt("success"), member_id=member_id, session_id=session_id, method=method)

    def _failure(self, identifier: str | None, member_id: str | None) -> Login:
        said = None if identifier is None else identifier.replace("\0", "")[:512]
        return structs.replace(self._attempt("failure"), member_id=member_id, identifier=said)

    def _attempt(self, outcome: Literal["success", "failure"]) -> Login:
        seen, desk = self._seen, self._desk
        return Login(
            outcome=outcome,
            ip=desk.ip(seen),
            app=desk.front.app,
            host=seen.host[:253] or None,
            client_hints=seen.hints or None,
            **self._question(),
        )

    def _took(self, answer: LoginAnswer, value: str) -> None:
        """Set the cookies of a login, or refuse it."""
        if not answer.allowed:
            self._stop(answer)
            return
        device = None if answer.device is None else answer.device.cookie
        if device is not None:
            self.cookies.append(self._desk.device_header(device.header))
        self.cookies.append(self._desk.header(value))

    def _checked(self, verdict: Verdict) -> Verdict:
        self.verdict = verdict
        if not verdict.allowed:
            self._stop(verdict)
        return verdict


class AsyncGate(Gate):
    """The gate of ASGI and aiohttp."""

    def __init__(self, guard: AccessGuard, desk: Desk, seen: Seen, named: Named = NOTHING) -> None:
        super().__init__(desk, seen, named)
        self._guard = guard

    async def ask(self) -> None:
        """Check the request before the platform sees it."""
        if self._desk.public(self._seen.path):
            return
        if self.session_id is None:
            self._stop(None)
            return
        await self.check(self._named)

    async def check(self, named: Named = NOTHING) -> Verdict:
        """Check the session again, as doing something else; a refusal replaces the answer."""
        if self.session_id is None:
            return self._checked(NOBODYS)
        who, ip = self._question(), self._desk.ip(self._seen)
        does = {"activity": named.kind, "resource": named.resource, "product_id": named.product}
        return self._checked(await self._guard.check(self.session_id, ip, **who, **does))

    async def login(self, member_id: str, *, method: str = "password") -> LoginAnswer:
        """Record that somebody logged in, and set both cookies; a refusal replaces the answer."""
        value, session_id = self._desk.fresh()
        answer = await self._guard.login(self._login(member_id, session_id, method))
        self._took(answer, value)
        return answer

    async def failed(self, identifier: str | None = None, *, member_id: str | None = None) -> None:
        """Record a login that the platform refused; when there were too many, the service's refusal replaces the answer."""
        try:
            answer = await self._guard.login(self._failure(identifier, member_id))
        except ClientError:  # what was typed is nonsense to the service, too
            return
        if not answer.allowed and not answer.unknown:
            self._stop(answer)

    async def logout(self) -> None:
        """End the session, and take its cookie back."""
        self.cookies.append(self._desk.header("", gone=True))
        if self.session_id is None:
            return
        try:
            await self._guard.end(self.session_id)
        except ClientError:  # the student leaves in any case; without its cookie nobody has the session
            return


class BlockingGate(Gate):
    """The gate of WSGI."""

    def __init__(self, guard: BlockingAccessGuard, desk: Desk, seen: Seen, named: Named = NOTHING) -> None:
        super().__init__(desk, seen, named)
        self._guard = guard

    def ask(self) -> None:
        """Check the request before the platform sees it."""
        if self._desk.public(self._seen.path):
            return
        if self.session_id is None:
            self._stop(None)
            return
        self.check(self._named)

    def check(self, named: Named = NOTHING) -> Verdict:
        """Check the session again, as doing something else; a refusal replaces the answer."""
        if self.session_id is None:
            return self._checked(NOBODYS)
        who, ip = self._question(), self._desk.ip(self._seen)
        does = {"activity": named.kind, "resource": named.resource, "product_id": named.product}
        return self._checked(self._guard.check(self.session_id, ip, **who, **does))

    def login(self, member_id: str, *, method: str = "password") -> LoginAnswer:
        """Record that somebody logged in, and set both cookies; a refusal replaces the answer."""
        value, session_id = self._desk.fresh()
        answer = self._guard.login(self._login(member_id, session_id, method))
        self._took(answer, value)
        return answer

    def failed(self, identifier: str | None = None, *, member_id: str | None = None) -> None:
        """Record a login that the platform refused; when there were too many, the service's refusal replaces the answer."""
        try:
            answer = self._guard.login(self._failure(identifier, member_id))
        except ClientError:  # what was typed is nonsense to the service, too
            return
        if not answer.allowed and not answer.unknown:
            self._stop(answer)

    def logout(self) -> None:
        """End the session, and take its cookie back."""
        self.cookies.append(self._desk.header("", gone=True))
        if self.session_id is None:
            return
        try:
            self._guard.end(self.session_id)
        except ClientError:  # as above
            return
