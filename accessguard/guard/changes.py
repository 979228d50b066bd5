"""Whatever changes a verdict is told to every worker after its commit; a lost message costs at most 5 s.

Two ways lead to the same end: the pushed message, at once, and the generation
numbers in PostgreSQL, read every two seconds. A worker that has lost the
channel trusts nothing it holds until the channel is back, and one that stood
still (stopped, starved, moved to another machine) until it has read the numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

import msgspec

from accessguard.errors import GuardError
from accessguard.guard.bars import Bars
from accessguard.guard.memory import Memory
from accessguard.metrics import CHANGES, LOOP_SECONDS, PROPAGATION, SNAPSHOT_AGE, STALENESS
from accessguard.policies.book import PolicyBook
from accessguard.policies.store import PolicyStore
from accessguard.sessions.live import Change, Live
from accessguard.sessions.model import Snapshot
from accessguard.sessions.store import SessionStore

POLL_S: Final = 2.0
LEAVE_S: Final = 1.0
"""How often it is looked whether Valkey has lost what this worker knows of blocks: one look is two commands."""
MOST_AT_ONCE: Final = 500
"""Rows of one page: a millisecond, during which no check is answered."""
OVERLAP: Final = 3
"""Numbers are drawn before their commit, so each poll looks back to where the third one before it began."""
AWAKE_S: Final = 0.5
STILL_S: Final = 3.0
"""A worker that has done nothing for so long may be asked before it hears what happened meanwhile; with the look at the
numbers that follows, a change is still honoured within 5 s of its own waking hours."""

AFTER_LOOK_S: Final = 4.0
AFTER_CHANNEL_S: Final = 0.5
"""So long what this worker knows of blocks is taken for all there is, with nobody to ask: after a look at the numbers
began, and after the channel was lost, which may have said nothing for 4 s before that was noticed. Together with the check itself under 5 s."""

SPOOLED: Final = "login_spooled"
"""A login that PostgreSQL does not have yet: what was known of the member before it is still worth knowing."""
NEWS: Final = "news"
"""Something for whoever follows the tenant's events, that changes no verdict. It names nobody's member, so that the release
before drops nothing either."""
CALLERS: Final = "callers_changed"
"""A caller or a token is refused from now on, or no longer; the release before hears of nobody's member."""
MOST_ASIDE: Final = 10_000


class Changes:
    """Sends this worker's changes and applies those of all workers."""

    def __init__(
        self, *, live: Live, memory: Memory, book: PolicyBook, sessions: SessionStore, policies: PolicyStore
    ) -> None:
        self._live = live
        self._memory = memory
        self._book = book
        self._sessions = sessions
        self._policies = policies
        self.bars = Bars(live=live, sessions=sessions, barred=memory.barred)
        self._marks: list[int] = []
        self._aside: dict[tuple[str, str], Snapshot] = {}
        self._erasures: dict[UUID, None] = {}
        self.on_erased: Callable[[str, str], None] | None = None
        self.on_change: Callable[[str], None] = _nobody
        self.on_callers: Callable[[], None] = _nothing
        self._back = False
        self.awake_at = self.trusted_at = self.looked_at = time.monotonic()
        self.spooled_at = 0.0

    async def announce(self, change: Change) -> None:
        """Apply a committed change here, then push it; when it cannot be pushed, the generations still tell."""
        change = self._numbered(change)
        self.apply(change)
        await self.bars.keep(change)
        with contextlib.suppress(GuardError):
            await self._live.publish(msgspec.structs.replace(change, sent_ms=time.time_ns() // 1_000_000))

    async def announce_news(self, tenant: str) -> None:
        """Tell every worker that there is something new for whoever follows this tenant's events."""
        await self.announce(Change(tenant=tenant, kind=NEWS, member_id=""))

    def _numbered(self, change: Change) -> Change:
        """What is never lifted needs a number only for its age, and the last one that was seen will do."""
        if not change.ended or change.generation:
            return change
        return msgspec.structs.replace(change, generation=self._marks[-1] if self._marks else 0)

    def apply(self, change: Change) -> None:
        """Drop what this worker holds and the change concerns."""
        CHANGES.inc()
        if change.kind == CALLERS:
            self.on_callers()
            return
        self.on_change(change.tenant)
        if change.kind == NEWS:
            return
        if change.erasure is not None:
            self._heard(change.erasure)
            if change.member_id is not None and self.on_erased is not None:
                self.on_erased(change.tenant, change.member_id)
        if change.member_id is None:
            self._book.drop(change.tenant)
            return
        if change.kind == SPOOLED:
            self._set_aside(change.tenant, change.member_id)
            self.spooled_at = time.monotonic()
        else:
            self._aside.pop((change.tenant, change.member_id), None)
        self.bars.hear(change)
        self._memory.drop(change.tenant, change.member_id, change.session_ids)

    def last_known(self, tenant: str, member_id: str) -> Snapshot | None:
        """A member as PostgreSQL had it when it was last asked; None when this worker holds nothing of it."""
        return self._memory.of_member(tenant, member_id) or self._aside.get((tenant, member_id))

    def _set_aside(self, tenant: str, member_id: str) -> None:
        known = self._memory.of_member(tenant, member_id)
        if known is None:
            return
        if len(self._aside) >= MOST_ASIDE:
            self._aside.pop(next(iter(self._aside)))
        self._aside[tenant, member_id] = known

    def _heard(self, erasure_id: UUID) -> None:
        self._erasures[erasure_id] = None
        if len(self._erasures) > MOST_ASIDE:
            self._erasures.pop(next(iter(self._erasures)))

    async def _erased_since(self, since: int) -> None:
        """Forget everything when somebody was erased of whom this worker was not told: there is no row left to go by."""
        missed = [each for each in await self._sessions.erased(since) if each not in self._erasures]
        if missed:
            for each in missed:
                self._heard(each)
            self._aside.clear()
            self._memory.drop_all()

    def places(self) -> None:
        """Hear that other geo files came into use: rules on places are judged anew."""
        self._book.renew_placed()

    def channel(self, up: bool) -> None:  # noqa: FBT001 - a callback with one thing to say
        """Hear whether pushed changes arrive; without them nothing held is trusted.

        When they arrive again, what was held is forgotten, but not before
        PostgreSQL can be asked anew: until then it is all that is known of blocks.
        """
        self.awake(time.monotonic())
        if self._memory.trusted and not up:
            self.bars.have_all(time.monotonic() + AFTER_CHANNEL_S)
        self._back = up and not self._memory.trusted
        self.bars.missed()
        if not up:
            self._memory.trusted = False
        elif self._back and not self._sessions.out:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._back = False
        self._memory.drop_all()
        self._book.drop_all()
        self._memory.trusted = True

    async def listen(self) -> None:
        """Apply pushed changes until cancelled."""
        await self._live.listen(self.pushed, self.channel)

    def pushed(self, change: Change) -> None:
        """Apply what was pushed, by this worker or another, and note how long it was under way."""
        if change.sent_ms:
            PROPAGATION.observe(max(0.0, time.time() - change.sent_ms / 1000))
        self.apply(change)

    async def stay_awake(self) -> None:
        """Notice when this worker stood still, or is late, until cancelled."""
        due = time.monotonic()
        while True:
            now = time.monotonic()
            LOOP_SECONDS.observe(max(0.0, now - due))
            self.awake(now)
            if self._memory.trusted:
                self.trusted_at = now
            due = now + AWAKE_S
            await asyncio.sleep(AWAKE_S)

    def measure(self) -> None:
        """Bring up to date what is only brought when it is read."""
        now = time.monotonic()
        STALENESS.set(0.0 if self._memory.trusted else now - self.trusted_at)
        SNAPSHOT_AGE.set(now - self.looked_at)

    def awake(self, now: float) -> None:
        """To be called often, and before anything is answered from memory; `now` is a monotonic clock's (s)."""
        stood_still, self.awake_at = now - self.awake_at > STILL_S, now
        if stood_still and self._memory.trusted:
            self._memory.trusted = False
            self._back = True

    async def poll(self) -> None:
        """Find out about changes whose message was lost, until cancelled."""
        while True:
            with contextlib.suppress(GuardError):
                await self.look()
            if not self._memory.trusted:
                self.bars.missed()
            with contextlib.suppress(GuardError):
                await self.bars.look()
            await asyncio.sleep(POLL_S)

    async def leave(self) -> None:
        """Write what is known of bars once Valkey is back, until cancelled; never behind PostgreSQL, which may hang for 5 s."""
        while True:
            with contextlib.suppress(GuardError):
                await self.bars.leave()
            await asyncio.sleep(LEAVE_S)

    async def look(self) -> None:
        """Read once which members and tenants have changed since a few looks ago; one that fails is none."""
        began = time.monotonic()
        newest = await self._sessions.newest_generation()
        if self._back:
            self._begin_anew()
        since = self._marks[0] if self._marks else newest
        await self._members_since(since)
        self.bars.have_all(began + AFTER_LOOK_S)
        await self._erased_since(since)
        for tenant, generation in await self._policies.changed(since):
            held = self._book.held(tenant)
            if held is not None and held.generation < generation:
                self._book.drop(tenant)
        self._marks = [*self._marks, newest][-OVERLAP:]
        self.looked_at = began

    async def _members_since(self, since: int) -> None:
        """Page through all of them: after many logins they are thousands, and none may be left out."""
        while True:
            page = await self._sessions.changed(since, most=MOST_AT_ONCE)
            for tenant, member_id, generation in page:
                self._memory.drop_older(tenant, member_id, generation)
            if len(page) < MOST_AT_ONCE:
                return
            since = page[-1][2]


def _nobody(_: str) -> None:
    """Nobody wants to know."""


def _nothing() -> None:
    """Nobody has to be told."""
