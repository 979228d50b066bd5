"""Refusing tokens and callers that are genuine: written with its line in the audit log, known to every worker within 5 s.

Two ways lead to the same end, as with every change of a verdict: a pushed
message, at once, and the numbers in PostgreSQL, read every two seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError
from accessguard.events.console_sessions import ConsoleSessionStore
from accessguard.events.revocations import RevocationStore
from accessguard.events.revoked import Revocation, Revoked, Told
from accessguard.guard.acts import Act, log
from accessguard.guard.changes import CALLERS, OVERLAP, POLL_S, Changes
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor
from accessguard.sessions.live import Change
from accessguard.sessions.store import SessionStore

AT_ONCE: Final = 500
"""Rows of one page: under a millisecond, during which nothing is answered."""


class Revoking:
    """One for each worker; what is new is handed to `on_told`."""

    def __init__(
        self,
        *,
        db: Database,
        changes: Changes,
        new_id: Callable[[], UUID],
        on_told: Callable[[Sequence[Told]], None],
    ) -> None:
        self._db = db
        self._store = RevocationStore(db)
        self._sessions = SessionStore(db)
        self._changes = changes
        self._new_id = new_id
        self._on_told = on_told
        self._marks: list[int] = []
        self._news = asyncio.Event()
        changes.on_callers = self._news.set

    async def revoke(
        self,
        tenant: str,
        actor: Actor,
        kind: Revoked,
        name: str,
        *,
        revocation_id: UUID,
        expires_at: datetime | None,
        reason: str | None,
        now_ms: int,
    ) -> Revocation:
        """Refuse a token, or all that a caller was given up to now; whoever signed in to the console with them is signed out.

        Raises GuardError CONFLICT for too many, UNAVAILABLE.
        """
        now = from_ms(now_ms)
        made = Revocation(
            id=revocation_id,
            tenant=tenant,
            kind=kind,
            name=name,
            issued_until=now,
            expires_at=expires_at,
            at=now,
            actor=actor.subject,
            reason=reason,
        )
        async with self._db.transaction() as tx:
            if not await RevocationStore(tx).add(made):
                return await self._stored(tx, tenant, revocation_id)
            await _sign_out(ConsoleSessionStore(tx), made)
            act = Act(tenant=tenant, actor=actor, action=f"{kind}.revoke", target=name, reason=reason, at=now)
            await log(tx, act, None, {"id": str(made.id), "expires_at": expires_at}, entry_id=self._new_id())
        await self._tell(tenant)
        return made

    async def lift(self, tenant: str, actor: Actor, revocation_id: UUID, *, reason: str | None, now_ms: int) -> None:
        """Refuse no longer. Raises GuardError NOT_FOUND, UNAVAILABLE."""
        now = from_ms(now_ms)
        async with self._db.transaction() as tx:
            found = await RevocationStore(tx).lift(tenant, revocation_id, at=now)
            if found is None:
                raise GuardError(ErrorCode.NOT_FOUND, "There is no such revocation.")
            act = Act(
                tenant=tenant, actor=actor, action=f"{found.kind}.restore", target=found.name, reason=reason, at=now
            )
            await log(tx, act, {"id": str(found.id), "reason": found.reason}, None, entry_id=self._new_id())
        await self._tell(tenant)

    async def run(self) -> None:
        """Hear of what other workers wrote, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._news.wait()
            self._news.clear()
            with contextlib.suppress(GuardError):
                await self.look()

    async def look(self) -> None:
        """Read what is new since a few looks ago, as numbers are drawn before their commit; the first time, all there is."""
        newest = await self._sessions.newest_generation()
        since = self._marks[0] if self._marks else 0
        while True:
            page = await self._store.since(since, most=AT_ONCE)
            if page:
                self._on_told([each for _, each in page])
            if len(page) < AT_ONCE:
                break
            since = page[-1][0]
        self._marks = [*self._marks, newest][-OVERLAP:]

    async def _tell(self, tenant: str) -> None:
        await self._changes.announce(Change(tenant=tenant, kind=CALLERS, member_id=""))
        with contextlib.suppress(GuardError):
            await self.look()  # here it holds with the answer

    async def _stored(self, tx: Database, tenant: str, revocation_id: UUID) -> Revocation:
        stored = await RevocationStore(tx).one(tenant, revocation_id)
        if stored is None:
            raise GuardError(ErrorCode.CONFLICT, "That was lifted meanwhile.")
        return stored


async def _sign_out(store: ConsoleSessionStore, made: Revocation) -> None:
    tenant = None if made.tenant == "*" else made.tenant
    if made.kind is Revoked.TOKEN:
        await store.end_of_token(tenant, made.name)
    else:
        await store.end_of_operator(tenant, made.name)
