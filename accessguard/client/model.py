"""What a platform asks, what it is answered, and how its client behaves."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Literal, TypeAlias
from uuid import uuid4

import msgspec


class ClientError(Exception):
    """A call was refused, or not answered in time; `status` is that of HTTP, None where nothing came."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Decision(StrEnum):
    """What a check or a login comes to."""

    ALLOW = "allow"
    DENY = "deny"
    CHALLENGE = "challenge"


class Activity(StrEnum):
    """What a request does; one that is checked without it is no activity."""

    COURSE_OPEN = "course_open"
    LESSON_OPEN = "lesson_open"
    OFFER_OPEN = "offer_open"
    PAYMENT_OPEN = "payment_open"
    VIDEO_WATCH = "video_watch"
    ASSIGNMENT_COMPLETE = "assignment_complete"


class OnUnknown(StrEnum):
    """What to do when the service does not say: nobody is locked out, or nobody is let in."""

    ALLOW = "allow"
    DENY = "deny"


Question: TypeAlias = tuple[str, str, str | None, str | None, str | None, str | None, str | None]
"""Everything a check says, in the order of `Check`: session, address, browser, device token, activity, resource, product."""


class Check(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """May this session go on? The body of `POST /v1/check`; made of a `Question` by place, which is quicker than by name."""

    session_id: str
    ip: str
    user_agent: str | None = None
    device_token: str | None = None
    activity: str | None = None
    resource: str | None = None
    product_id: str | None = None


def _fresh() -> str:
    return str(uuid4())


class Login(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One login attempt: the body of `POST /v1/logins`; `outcome` is what the platform's own check said.

    It has an `attempt_id` of its own, which makes it safe to send it again.
    """

    outcome: Literal["success", "failure"]
    ip: str
    attempt_id: str = msgspec.field(default_factory=_fresh)
    member_id: str | None = None
    identifier: str | None = None
    failure_reason: str | None = None
    method: str | None = None
    app: str | None = None
    host: str | None = None
    user_agent: str | None = None
    client_hints: dict[str, str] | None = None
    device_token: str | None = None
    session_id: str | None = None


class Reason(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Why not. `message` is for the student, in `language`; `page_url` is a page about it that the service hosts."""

    code: str
    message: str | None = None
    language: str | None = None
    rule_id: str | None = None
    limit: int | None = None
    counted: int | None = None
    retry_at: str | None = None
    support_email: str | None = None
    page_url: str | None = None
    challenge_id: str | None = None
    end_reason: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer to a check.

    `ttl_ms` is how long an allow may be used again. `unknown`: the service did
    not say, and the decision is the client's own (`OnUnknown`).
    """

    decision: Decision
    reason: Reason | None = None
    member_id: str | None = None
    session_id: str | None = None
    device_id: str | None = None
    exempt: bool = False
    degraded: bool = False
    ttl_ms: int = 0
    violation_id: str | None = None
    unknown: bool = False

    @property
    def allowed(self) -> bool:
        """Whether the request may go on."""
        return self.decision is Decision.ALLOW


class Cookie(msgspec.Struct, frozen=True, kw_only=True):
    """The device's cookie: `header` is the whole value of `Set-Cookie`."""

    name: str
    value: str
    header: str
    max_age_s: int = 0


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """The device of a login."""

    id: str
    token: str | None = None
    cookie: Cookie | None = None
    new: bool = False


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The session of a login that was allowed."""

    id: str
    token: str | None = None
    expires_at: str | None = None


class LoginAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a login; a refused one has no session."""

    decision: Decision
    reason: Reason | None = None
    attempt_id: str | None = None
    session: Session | None = None
    device: Device | None = None
    exempt: bool = False
    degraded: bool = False
    unknown: bool = False

    @property
    def allowed(self) -> bool:
        """Whether the member may be logged in."""
        return self.decision is Decision.ALLOW


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange with the service, for traces and metrics: nobody's name is in it.

    `call` is the path's pattern, `checks` how many went in it, `status` that of
    HTTP (None: nothing came), `seconds` how long it took.
    """

    call: str
    checks: int
    status: int | None
    seconds: float


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a client behaves. Times in milliseconds.

    `address` is `http://host:port` or `unix:/path`. `token` is the platform's
    (role `platform`), or a function that gives the one to use now. `tenant` is
    named with a token for all tenants. A check has its answer, or `on_unknown`,
    within `deadline_ms`; a login within `login_deadline_ms`. After `failures`
    exchanges in a row that came to nothing, none is tried for `pause_ms`. Up to
    `held` answers are held, none without `hold` or longer than the service
    says. `follow`: listen to `/v1/stream`. `told` is called after each exchange.
    """

    address: str
    token: str | Callable[[], str]
    tenant: str | None = None
    on_unknown: OnUnknown = OnUnknown.ALLOW
    deadline_ms: int = 500
    login_deadline_ms: int = 3_000
    connections: int = 4
    hold: bool = True
    held: int = 50_000
    follow: bool = True
    failures: int = 5
    pause_ms: int = 1_000
    told: Callable[[Told], None] | None = None


class Tally:
    """What a client did since it began: checks answered from memory, sent, answered by nobody; events heard."""

    __slots__ = ("events", "held", "sent", "unknown")

    def __init__(self) -> None:
        self.held = 0
        self.sent = 0
        self.unknown = 0
        self.events = 0


def unknown(on: OnUnknown) -> Verdict:
    """The verdict when the service does not say."""
    if on is OnUnknown.ALLOW:
        return Verdict(decision=Decision.ALLOW, degraded=True, unknown=True)
    return Verdict(decision=Decision.DENY, reason=Reason(code="undecided"), degraded=True, unknown=True)


def unknown_login(on: OnUnknown) -> LoginAnswer:
    """The answer to a login when the service does not say: no session, so that its checks are those of a stranger."""
    found = unknown(on)
    return LoginAnswer(decision=found.decision, reason=found.reason, degraded=True, unknown=True)


REFUSED = Verdict(decision=Decision.DENY, reason=Reason(code="undecided"))
"""What a question comes to that the service does not accept: an outage must not be feigned by sending nonsense."""
