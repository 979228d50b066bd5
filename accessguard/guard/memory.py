"""What a worker holds: the last verdict of each session with what it depends on, and members as PostgreSQL had them.

A held session has to be small, because a worker holds a million of them: about
700 bytes each, all told. What a plain allow says is not kept as text but put together
from three values; the member's snapshot is kept packed, and for the members
that were looked at last only.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntFlag
from itertools import islice
from typing import Final, TypeAlias, TypeVar

import msgspec

from accessguard.guard.model import Check, Verdict
from accessguard.policies.model import Policy
from accessguard.sessions.model import Snapshot
from accessguard.violations.model import Found

Key = TypeVar("Key")
Kept = TypeVar("Kept")

Place: TypeAlias = tuple[str, str]
"""A tenant, and one of its members or sessions."""

MOST_SESSIONS: Final = 1_000_000
MOST_SNAPSHOTS: Final = 50_000
MOST_UNKNOWN: Final = 10_000
UNKNOWN_MS: Final = 2_000
MOST_SEEN: Final = 16_384
"""Bodies, and as many whole requests, known again by their bytes: about 20 MB each when full."""

PACK: Final = msgspec.msgpack.Encoder()
UNPACK: Final = msgspec.msgpack.Decoder(Snapshot)


class Mark(IntFlag):
    """What is known of a held verdict, in one small number.

    `BEATEN`: the session's last beat is younger than 30 s until the verdict
    ends. `STEADY`: nothing but a change that is pushed can alter the verdict,
    so its next beat needs no evaluation. `EXEMPT`: the answer says so.
    `REFUSED`: no interaction is recorded while the verdict lasts. `DEAD`: memory
    has let go of it. `SEEN`: it has been given more than once.
    """

    BEATEN = 1
    STEADY = 2
    EXEMPT = 4
    REFUSED = 8
    DEAD = 16
    SEEN = 32


BEATEN: Final = int(Mark.BEATEN)
STEADY: Final = int(Mark.STEADY)
EXEMPT: Final = int(Mark.EXEMPT)
REFUSED: Final = int(Mark.REFUSED)
QUIET: Final = BEATEN | REFUSED
DEAD: Final = int(Mark.DEAD)
SEEN: Final = int(Mark.SEEN)


class Other(msgspec.Struct, kw_only=True, gc=False):
    """What a held verdict says when it is no plain allow.

    `found` are the cases that a repeated refusal is counted on, `bodies` the
    answers as bytes by their language, once they were written.
    """

    verdict: Verdict
    found: tuple[Found, ...] = ()
    bodies: dict[str, bytes] = msgspec.field(default_factory=dict)


class Member(msgspec.Struct, gc=False):
    """A member in memory: as of which generation, how many open sessions, the snapshot while there is room for it.

    `sessions` are the ones whose verdict is held.
    """

    id: str
    generation: int
    open: int
    packed: bytes | None = None
    sessions: tuple[str, ...] = ()


class Held(msgspec.Struct, gc=False):
    """One verdict and all it depends on.

    `asked` is a keyed 64-bit hash of those parts of the question that the
    verdict depends on (SipHash-1-3 under a key of this process, PEP 456), `until` the time (ms since the
    epoch) when the verdict ends whatever happens, or wants its beat. `device`
    is the device's id as JSON. `rest` is how many beats may follow without an
    evaluation. `other` is None for a plain allow. It is never part of a
    cycle, so the collector need not look at a million of them.
    """

    member: Member
    policy: Policy
    asked: int
    until: int
    device: bytes
    flags: int
    rest: int = 0
    other: Other | None = None


def asked_of(asked: Check, policy: Policy) -> int:
    """What a verdict depends on, of a question: everything but the time and what is only recorded."""
    product = asked.product_id if policy.by_product else None
    activity = asked.activity if policy.by_activity else None
    return hash((asked.ip, asked.user_agent, asked.device_token, product, activity))


class Known(msgspec.Struct, gc=False, frozen=True):
    """A question that was answered by a plain allow more than once, known again by its bytes.

    `active` says that it records an interaction, `until` when its caller's
    token ends (ms since the epoch; of a body, whose head says so, never), `tail` is the answer from the number of
    its Content-Length on.
    """

    held: Held
    tenant: str
    active: bool
    until: int
    tail: bytes


class Room:
    """What is held of one tenant."""

    __slots__ = ("held", "members")

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self.members: dict[str, Member] = {}


class Recent:
    """What changed lately, by the number of the change; what it no longer knows of counts as changed with the last it let go."""

    def __init__(self) -> None:
        self._at: dict[Place, int] = {}
        self._floor = -1

    def __len__(self) -> int:
        return len(self._at)

    def note(self, place: Place, number: int) -> None:
        """Something changed just now."""
        self._at.pop(place, None)
        self._at[place] = number
        for surplus in oldest(self._at, MOST_UNKNOWN):
            self._floor = max(self._floor, self._at.pop(surplus))

    def note_all(self, number: int) -> None:
        """Anything may have changed."""
        self._at.clear()
        self._floor = number

    def since(self, place: Place, number: int) -> bool:
        """Whether it may have changed with that number or after it."""
        return self._at.get(place, self._floor) >= number


class Memory:
    """Bounded by count; the verdict and the snapshot that were made longest ago go first."""

    def __init__(self) -> None:
        self.trusted = True
        self.size = 0
        self.rooms: dict[str, Room] = {}
        self.requests: dict[bytes, Known] = {}
        self.bodies: dict[bytes, Known] = {}
        self._packed: dict[Place, None] = {}
        self._unknown: dict[Place, int] = {}
        self._drops = Recent()
        self._begun = Recent()
        self._count = 0

    def verdict(self, tenant: str, session_id: str) -> Held | None:
        """The verdict held for a session, if memory may be trusted."""
        return self.last(tenant, session_id) if self.trusted else None

    def last(self, tenant: str, session_id: str) -> Held | None:
        """The verdict held for a session, trusted or not: when it last beat is true in any case."""
        room = self.rooms.get(tenant)
        return room.held.get(session_id) if room is not None else None

    def known(self, tenant: str, session_id: str) -> Snapshot | None:
        """The member of a session that has a verdict, if memory may be trusted."""
        return self.stale(tenant, session_id) if self.trusted else None

    def stale(self, tenant: str, session_id: str) -> Snapshot | None:
        """The member of a session as it was last seen; for when no store answers."""
        held = self.last(tenant, session_id)
        packed = held.member.packed if held else None
        return None if packed is None else UNPACK.decode(packed)

    def of_member(self, tenant: str, member_id: str) -> Snapshot | None:
        """A member as it was last seen; for when no store answers."""
        room = self.rooms.get(tenant)
        member = room.members.get(member_id) if room is not None else None
        return None if member is None or member.packed is None else UNPACK.decode(member.packed)

    def unknown(self, tenant: str, session_id: str, now_ms: int) -> bool:
        """Whether PostgreSQL said a moment ago that there is no such session."""
        return self.trusted and self._unknown.get((tenant, session_id), 0) > now_ms

    def moment(self) -> int:
        """A number to hand to `hold`, taken before what a verdict is made from is read."""
        return self._count + 1

    def changed(self, tenant: str, member_id: str, since: int) -> bool:
        """Whether the member was changed since that moment, so that what was read at it may be old."""
        return self._drops.since((tenant, member_id), since)

    def begun(self, tenant: str, session_id: str, since: int) -> bool:
        """Whether the session began or ended since that moment, so that it may be there by now."""
        return self._begun.since((tenant, session_id), since)

    def learn_unknown(self, tenant: str, session_id: str, now_ms: int) -> None:
        """Keep for 2 s that there is no such session."""
        self._unknown.pop((tenant, session_id), None)
        self._unknown[tenant, session_id] = now_ms + UNKNOWN_MS
        for surplus in oldest(self._unknown, MOST_UNKNOWN):
            del self._unknown[surplus]

    def member(self, snapshot: Snapshot, since: int) -> Member | None:
        """The member to hold a verdict under; None when it was changed since the snapshot was asked for."""
        tenant, member_id = snapshot.tenant, snapshot.member_id
        if self.changed(tenant, member_id, since):
            return None
        room = self._room(tenant)
        there = room.members.get(member_id)
        if there is None or there.generation != snapshot.generation:
            self._forget(tenant, member_id)
            there = room.members[member_id] = Member(member_id, snapshot.generation, snapshot.open)
        self._keep(there, snapshot)
        return there

    def hold(self, tenant: str, session_id: str, held: Held) -> None:
        """Keep a verdict until one of the things it depends on changes; its member came from `member` just now."""
        room, member = self.rooms.get(tenant), held.member
        if room is None or room.members.get(member.id) is not member:
            return
        before = room.held.pop(session_id, None)
        if before is None:
            self.size += 1
        else:
            before.flags |= DEAD
        room.held[session_id] = held
        if session_id not in member.sessions:
            member.sessions = (*member.sessions, session_id)
        if self.size > MOST_SESSIONS:
            self._make_room(room)

    def forget_questions(self) -> None:
        """Make room for others than those that were first."""
        for questions in (self.requests, self.bodies):
            if len(questions) >= MOST_SEEN:
                questions.clear()

    def drop(self, tenant: str, member_id: str, session_ids: Iterable[str] = ()) -> None:
        """Forget a member, every verdict on its sessions, and that the named sessions were unknown."""
        self._count += 1
        self._drops.note((tenant, member_id), self._count)
        for session_id in session_ids:
            self._begun.note((tenant, session_id), self._count)
            self._unknown.pop((tenant, session_id), None)
        self._forget(tenant, member_id)

    def drop_older(self, tenant: str, member_id: str, generation: int) -> bool:
        """Forget a member seen before `generation`; whether there was something to forget."""
        room = self.rooms.get(tenant)
        member = room.members.get(member_id) if room else None
        if member is not None and member.generation >= generation:
            return False
        self.drop(tenant, member_id)
        return member is not None

    def drop_all(self) -> None:
        """Forget everything, when it is not known what has changed."""
        self._count += 1
        self._drops.note_all(self._count)
        self._begun.note_all(self._count)
        self._unknown.clear()
        self._packed.clear()
        self.rooms.clear()
        self.requests.clear()
        self.bodies.clear()
        self.size = 0

    def _room(self, tenant: str) -> Room:
        room = self.rooms.get(tenant)
        if room is None:
            room = self.rooms[tenant] = Room()
        return room

    def _keep(self, member: Member, snapshot: Snapshot) -> None:
        """Keep the snapshot, packed; the ones kept longest make room."""
        place = (snapshot.tenant, member.id)
        member.packed = PACK.encode(snapshot)
        self._packed.pop(place, None)
        self._packed[place] = None
        for tenant, member_id in oldest(self._packed, MOST_SNAPSHOTS):
            del self._packed[tenant, member_id]
            other = self._room(tenant).members.get(member_id)
            if other is not None:
                other.packed = None

    def _forget(self, tenant: str, member_id: str) -> None:
        room = self.rooms.get(tenant)
        member = room.members.pop(member_id, None) if room else None
        if room is None or member is None:
            return
        self._packed.pop((tenant, member_id), None)
        for session_id in member.sessions:
            held = room.held.pop(session_id, None)
            if held is not None:
                held.flags |= DEAD
                self.size -= 1

    def _make_room(self, room: Room) -> None:
        """Let go of what was decided longest ago: of this tenant if it has much, else of the one that has most."""
        if len(room.held) * 2 < self.size:
            room = max(self.rooms.values(), key=lambda each: len(each.held))
        for session_id in oldest(room.held, len(room.held) - 1):
            held = room.held.pop(session_id)
            held.flags |= DEAD
            self.size -= 1
            held.member.sessions = tuple(each for each in held.member.sessions if each != session_id)
            if not held.member.sessions:
                room.members.pop(held.member.id, None)


def oldest(memory: dict[Key, Kept], most: int) -> list[Key]:
    """What to forget of a memory that has grown past `most`: a good many at once, so that it is rarely looked for.

    The first key of a dict is found by passing over all that were deleted
    before it, so one at a time would cost more with each.
    """
    if len(memory) <= most:
        return []
    return list(islice(memory, len(memory) - most + most // 64))
