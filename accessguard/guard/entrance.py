"""Into the console and out of it: one-use links, sessions that end by themselves, signing out everywhere."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.events.console_sessions import ConsoleSession, ConsoleSessionStore
from accessguard.guard.acts import Act, log
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor
from accessguard.signing import Signer, SigningKey

# NIST SP 800-63B-4, 2.2.3 (AAL2): an hour without activity and 24 hours at most; of what is at stake here, half of it.
IDLE: Final = timedelta(minutes=30)
LONGEST: Final = timedelta(hours=12)
OFFERED: Final = timedelta(minutes=2)
"""How long a link waits: as long as a redirect and a page take on a slow telephone."""
BEAT: Final = timedelta(minutes=1)
"""How seldom it is written that somebody is there."""
SECRET_BYTES: Final = 32
PARTS: Final = 3


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What a link carries, and until when it works."""

    token: str
    expires_at: datetime


class Entered(msgspec.Struct, frozen=True, kw_only=True):
    """A session that has begun, and what its browser keeps."""

    token: str
    session: ConsoleSession


class Entrance:
    """What browsers and links hold is signed, so that a forged one touches no store; a hash of its secret is stored.

    Every method that waits raises GuardError(UNAVAILABLE) when Postgres is out of reach.
    """

    def __init__(self, *, db: Database, keys: Sequence[SigningKey], new_id: Callable[[], UUID]) -> None:
        self._db = db
        self._store = ConsoleSessionStore(db)
        self._links = Signer(keys, purpose="console-link")
        self._cookies = Signer(keys, purpose="console-session")
        self._forms = Signer(keys, purpose="console-form")
        self._new_id = new_id

    async def offer(self, tenant: str, actor: Actor, *, now_ms: int, token_id: str | None = None) -> Offer:
        """A link for this operator, with the role that it has now; good once. Raises GuardError(CONFLICT) for too many."""
        now, secret = from_ms(now_ms), secrets.token_bytes(SECRET_BYTES)
        session = self._session(tenant, actor, now, now + OFFERED)
        await self._store.add(session, _hash(secret), offered_until=session.ends_at, token_id=token_id)
        return Offer(token=_signed(self._links, session, secret), expires_at=session.ends_at)

    def offered(self, token: str | None) -> str | None:
        """The tenant that a link leads to; None for one that is none."""
        read = _read(self._links, token)
        return None if read is None else read[0]

    async def enter(self, token: str | None, *, now_ms: int) -> Entered | None:
        """Begin the session that a link stands for; None for one that was used, is too old or is none."""
        read, now, secret = _read(self._links, token), from_ms(now_ms), secrets.token_bytes(SECRET_BYTES)
        if read is None:
            return None
        tenant, session_id, offered = read
        async with self._db.transaction() as tx:
            begun = await ConsoleSessionStore(tx).begin(
                tenant, session_id, offered=_hash(offered), secret=_hash(secret), now=now, ends_at=now + LONGEST
            )
            if begun is None:
                return None
            await self._log(tx, begun, "console.enter", now)
        return Entered(token=_signed(self._cookies, begun, secret), session=begun)

    async def begin(
        self, tenant: str, actor: Actor, *, until: datetime, now_ms: int, token_id: str | None = None
    ) -> Entered:
        """Begin a session for who has shown a token that is good `until`. Raises GuardError(CONFLICT) for too many."""
        now, secret = from_ms(now_ms), secrets.token_bytes(SECRET_BYTES)
        session = self._session(tenant, actor, now, min(until, now + LONGEST))
        async with self._db.transaction() as tx:
            await ConsoleSessionStore(tx).add(session, _hash(secret), token_id=token_id)
            await self._log(tx, session, "console.enter", now)
        return Entered(token=_signed(self._cookies, session, secret), session=session)

    async def present(self, token: str | None, *, now_ms: int) -> ConsoleSession | None:
        """The session that a browser holds; None when there is none, or it is over."""
        found, now = await self.held(token, now_ms=now_ms), from_ms(now_ms)
        if found is not None and found.seen_at <= now - BEAT:
            await self._store.seen(found, at=now)
        return found

    async def held(self, token: str | None, *, now_ms: int) -> ConsoleSession | None:
        """The same without noting that somebody is there: a page that looks by itself keeps nobody signed in."""
        read, now = _read(self._cookies, token), from_ms(now_ms)
        if read is None:
            return None
        return await self._store.one(read[0], read[1], _hash(read[2]), now=now, idle_since=now - IDLE)

    async def leave(self, session: ConsoleSession) -> None:
        """Sign out in this browser."""
        await self._store.end(session)

    async def leave_everywhere(self, session: ConsoleSession, *, now_ms: int) -> None:
        """Sign out in every browser; links that wait are void."""
        async with self._db.transaction() as tx:
            await ConsoleSessionStore(tx).end_all(session.tenant, session.operator)
            await self._log(tx, session, "console.leave_everywhere", from_ms(now_ms))

    async def signed_in(self, tenant: str, operator: str | None, *, now_ms: int) -> Sequence[ConsoleSession]:
        """Who is signed in, of one operator, or with None of all."""
        now = from_ms(now_ms)
        return await self._store.listed(tenant, operator, now=now, idle_since=now - IDLE)

    async def show_out(self, tenant: str, actor: Actor, operator: str, *, reason: str | None, now_ms: int) -> int:
        """Sign another operator out everywhere, links that wait included; how many there were."""
        async with self._db.transaction() as tx:
            ended = await ConsoleSessionStore(tx).end_all(tenant, operator)
            act = Act(
                tenant=tenant,
                actor=actor,
                action="console.show_out",
                target=operator,
                reason=reason,
                at=from_ms(now_ms),
            )
            await log(tx, act, None, {"sessions": ended}, entry_id=self._new_id())
        return ended

    def form_token(self, session: ConsoleSession) -> str:
        """What every form of a session carries, and no other page can know."""
        return self._forms.sign(session.id.bytes)

    def is_form_of(self, session: ConsoleSession, token: str) -> bool:
        """Whether a form came from a page of this session."""
        parts = self._forms.read(token)
        return parts is not None and len(parts) == 1 and hmac.compare_digest(parts[0], session.id.bytes)

    def _session(self, tenant: str, actor: Actor, now: datetime, ends_at: datetime) -> ConsoleSession:
        return ConsoleSession(
            tenant=tenant,
            id=self._new_id(),
            operator=actor.subject,
            role=actor.role,
            begun_at=now,
            seen_at=now,
            ends_at=ends_at,
        )

    async def _log(self, tx: Database, session: ConsoleSession, action: str, now: datetime) -> None:
        actor = Actor(subject=session.operator, role=session.role)
        act = Act(tenant=session.tenant, actor=actor, action=action, target=str(session.id), reason=None, at=now)
        await log(tx, act, None, None, entry_id=self._new_id())


def _signed(signer: Signer, session: ConsoleSession, secret: bytes) -> str:
    return signer.sign(session.tenant.encode(), session.id.bytes, secret)


def _read(signer: Signer, token: str | None) -> tuple[str, UUID, bytes] | None:
    parts = signer.read(token)
    if parts is None or len(parts) != PARTS:
        return None
    return parts[0].decode(), UUID(bytes=parts[1]), parts[2]


def _hash(secret: bytes) -> bytes:
    """SHA-256 is enough for a secret that nobody can guess."""
    return hashlib.sha256(secret).digest()
