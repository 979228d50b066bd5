"""What a worker holds: members as PostgreSQL had them, and the last verdict of each session with what it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from sys import intern
from typing import Final, TypeVar

import msgspec

from accessguard.guard.model import Check, Verdict
from accessguard.policies.model import Policy
from accessguard.sessions.model import Snapshot
from accessguard.violations.model import Found

Place = TypeVar("Place")
Kept = TypeVar("Kept")

MOST_SESSIONS: Final = 1_000_000
MOST_MEMBERS: Final = 200_000
MOST_UNKNOWN: Final = 10_000
UNKNOWN_MS: Final = 2_000


class Held(msgspec.Struct, kw_only=True, gc=False):
    """One verdict and all it depends on; times in ms since the epoch.

    `beat_at` is when the next counted interaction is due, `until` when the
    verdict ends whatever happens. `found` are the cases that a repeated
    refusal is counted on. `body` is the answer as bytes, once it was written.
    `alive` ends for good when memory lets go of the verdict. It is never part
    of a cycle, so the collector need not look at a million of them.
    """

    verdict: Verdict
    policy: Policy
    ip: str
    user_agent: str | None
    device_token: str | None
    product_id: str | None
    beat_at: int
    until: int
    found: tuple[Found, ...] = ()
    alive: bool = True
    body: bytes | None = None

    @classmethod
    def of(
        cls,
        verdict: Verdict,
        policy: Policy,
        asked: Check,
        *,
        beat_at: int,
        until: int,
        found: tuple[Found, ...] = (),
    ) -> Held:
        """The verdict on `asked`; a browser's name is kept once, however many use it."""
        return cls(
            verdict=verdict,
            policy=policy,
            ip=asked.ip,
            user_agent=asked.user_agent if asked.user_agent is None else intern(asked.user_agent),
            device_token=asked.device_token,
            product_id=asked.product_id,
            beat_at=beat_at,
            until=until,
            found=found,
        )

    def fits(self, asked: Check, now_ms: int) -> bool:
        """Whether nothing that the verdict depends on is different in `asked`."""
        return (
            now_ms < self.until
            and (asked.activity is None or now_ms < self.beat_at)
            and asked.ip == self.ip
            and asked.user_agent == self.user_agent
            and asked.device_token == self.device_token
            and (asked.product_id == self.product_id or not self.policy.by_product)
        )


class Known(msgspec.Struct, gc=False):
    """A member in memory: its snapshot, newer last activity (ms) by session, and the sessions with a verdict."""

    snapshot: Snapshot
    live_ms: dict[str, int] = msgspec.field(default_factory=dict)
    sessions: dict[str, None] = msgspec.field(default_factory=dict)

    def hear(self, live_ms: Mapping[str, int], *, but: str) -> bool:
        """Take over newer last activity; whether that of another session than `but` is news."""
        news = False
        for session_id, at in live_ms.items():
            if self.live_ms.get(session_id, 0) < at:
                self.live_ms[session_id] = at
                news = news or session_id != but
        return news


class Memory:
    """Bounded by count; the verdict and the member that were decided on longest ago go first."""

    def __init__(self) -> None:
        self.trusted = True
        self._held: dict[tuple[str, str], Held] = {}
        self._members: dict[tuple[str, str], Known] = {}
        self._owners: dict[tuple[str, str], str] = {}
        self._unknown: dict[tuple[str, str], int] = {}
        self._drops: dict[tuple[str, str], int] = {}
        self._count = 0
        self._floor = -1

    @property
    def size(self) -> int:
        """How many verdicts are held."""
        return len(self._held)

    def verdict(self, tenant: str, session_id: str) -> Held | None:
        """The verdict held for a session, if memory may be trusted."""
        return self._held.get((tenant, session_id)) if self.trusted else None

    def known(self, tenant: str, session_id: str) -> Known | None:
        """The member of a session, if memory may be trusted."""
        return self.stale(tenant, session_id) if self.trusted else None

    def stale(self, tenant: str, session_id: str) -> Known | None:
        """The member of a session as it was last seen; for when no store answers."""
        owner = self._owners.get((tenant, session_id))
        return None if owner is None else self._members.get((tenant, owner))

    def unknown(self, tenant: str, session_id: str, now_ms: int) -> bool:
        """Whether PostgreSQL said a moment ago that there is no such session."""
        return self.trusted and self._unknown.get((tenant, session_id), 0) > now_ms

    def moment(self) -> int:
        """A number to hand to `learn`, taken before PostgreSQL is asked."""
        return self._count

    def learn(self, snapshot: Snapshot, since: int) -> Known | None:
        """Keep a snapshot asked for at `since`; None when the member was changed meanwhile, so it may be old."""
        place = (snapshot.tenant, snapshot.member_id)
        if self._drops.get(place, self._floor) >= since:
            return None
        there = self._members.get(place)
        if there is not None and there.snapshot.generation == snapshot.generation:
            return self._add(there, snapshot)
        self._forget(place)
        known = Known(snapshot)
        self._members[place] = known
        for session in snapshot.sessions:
            self._owners[snapshot.tenant, session.id] = snapshot.member_id
        for surplus in oldest(self._members, MOST_MEMBERS):
            self._forget(surplus)
        return known

    def _add(self, there: Known, snapshot: Snapshot) -> Known:
        """Add the ended session that was asked for to the member as it is held; no verdict is lost by it."""
        held = {session.id for session in there.snapshot.sessions}
        more = tuple(session for session in snapshot.sessions if session.id not in held)
        if more:
            there.snapshot = msgspec.structs.replace(there.snapshot, sessions=there.snapshot.sessions + more)
        for session in more:
            self._owners[snapshot.tenant, session.id] = snapshot.member_id
        return there

    def learn_unknown(self, tenant: str, session_id: str, now_ms: int) -> None:
        """Keep for 2 s that there is no such session."""
        self._unknown.pop((tenant, session_id), None)
        self._unknown[tenant, session_id] = now_ms + UNKNOWN_MS
        for surplus in oldest(self._unknown, MOST_UNKNOWN):
            del self._unknown[surplus]

    def hold(self, tenant: str, known: Known, session_id: str, held: Held) -> None:
        """Keep a verdict until one of the things it depends on changes."""
        if self._members.get((tenant, known.snapshot.member_id)) is not known:
            return
        self._let_go((tenant, session_id))
        self._held[tenant, session_id] = held
        known.sessions[session_id] = None
        for surplus in oldest(self._held, MOST_SESSIONS):
            self._let_go(surplus)

    def drop(self, tenant: str, member_id: str, session_ids: Iterable[str] = ()) -> None:
        """Forget a member, every verdict on its sessions, and that the named sessions were unknown."""
        self._count += 1
        self._drops.pop((tenant, member_id), None)
        self._drops[tenant, member_id] = self._count
        for surplus in oldest(self._drops, MOST_UNKNOWN):
            self._floor = max(self._floor, self._drops.pop(surplus))
        for session_id in session_ids:
            self._unknown.pop((tenant, session_id), None)
        self._forget((tenant, member_id))

    def drop_older(self, tenant: str, member_id: str, generation: int) -> bool:
        """Forget a member seen before `generation`; whether there was something to forget."""
        known = self._members.get((tenant, member_id))
        if known is not None and known.snapshot.generation >= generation:
            return False
        self.drop(tenant, member_id)
        return known is not None

    def drop_all(self) -> None:
        """Forget everything, when it is not known what has changed."""
        self._count += 1
        self._floor = self._count
        self._drops.clear()
        for place in list(self._members):
            self._forget(place)
        for session in list(self._held):
            self._let_go(session)
        self._unknown.clear()

    def _forget(self, place: tuple[str, str]) -> None:
        known = self._members.pop(place, None)
        if known is None:
            return
        tenant = place[0]
        for session_id in known.sessions:
            self._let_go((tenant, session_id))
        for session in known.snapshot.sessions:
            self._owners.pop((tenant, session.id), None)

    def _let_go(self, session: tuple[str, str]) -> None:
        held = self._held.pop(session, None)
        if held is not None:
            held.alive = False


def oldest(memory: dict[Place, Kept], most: int) -> list[Place]:
    """What to forget of a memory that has grown past `most`: a good many at once, so that it is rarely looked for.

    The first key of a dict is found by passing over all that were deleted
    before it, so one at a time would cost more with each.
    """
    if len(memory) <= most:
        return []
    return list(islice(memory, len(memory) - most + most // 64))
