"""What a worker holds: the last verdict of each session with what it depends on, and members as PostgreSQL had them.

A worker holds a million sessions, in two tiers. The ones that were asked about
lately are objects, about 700 bytes each: what a plain allow says is not kept as
text but put together from three values, and the member's snapshot is kept
packed. The others rest in a hundred bytes each (guard/cold.py), without a
snapshot; the next question about one makes it an object again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from enum import IntFlag
from typing import Final

import msgspec

from accessguard.guard.barred import Barred
from accessguard.guard.cold import Cold, Rested
from accessguard.guard.model import Check, Verdict
from accessguard.guard.recent import MOST_UNKNOWN, Place, Recent, oldest
from accessguard.policies.model import Policy
from accessguard.sessions.model import Snapshot
from accessguard.violations.model import Found

MOST_SESSIONS: Final = 1_000_000
MOST_HOT: Final = 50_000
"""Sessions as objects: what a busy worker is asked about within a minute or so, for 35 MB (with snapshots 70)."""
SECOND_CHANCES: Final = 16
"""At once; so a question never waits for more than a few microseconds, and all being used, the oldest rests."""
MOST_SNAPSHOTS: Final = 50_000
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
    evaluation. `other` is None for a plain allow. `id` is the session's,
    `noted` what `until` was when it was last looked at whether the session is used. It is never part of a
    cycle, so the collector need not look at all of them.
    """

    member: Member
    policy: Policy
    asked: int
    until: int
    device: bytes
    flags: int
    rest: int = 0
    other: Other | None = None
    id: str = ""
    noted: int = 0


def asked_of(asked: Check, policy: Policy) -> int:
    """What a verdict depends on, of a question: everything but the time and what is only recorded."""
    product = asked.product_id if policy.by_product else None
    activity = asked.activity if policy.by_activity else None
    return hash((asked.ip, asked.user_agent, asked.device_token, product, activity))


class Known(msgspec.Struct, gc=False, frozen=True):
    """A question that was answered by a plain allow more than once, known again by its bytes.

    `active` says that it records an interaction, `until` when its caller's
    token ends (ms since the epoch; of a body, whose head says so, never), `tail` is the answer from the number of
    its Content-Length on, its body in there from `at` on.
    """

    held: Held
    tenant: str
    active: bool
    until: int
    tail: bytes
    at: int


class Room:
    """What is held of one tenant's sessions that were asked about lately."""

    __slots__ = ("held", "members")

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self.members: dict[str, Member] = {}


class Memory:
    """Bounded by count; what has not been asked about for longest goes first, about so.

    A session is held in one tier or the other, never in both.
    """

    def __init__(self) -> None:
        self.trusted = True
        self.hot = 0
        self.rooms: dict[str, Room] = {}
        self.requests: dict[bytes, Known] = {}
        self.bodies: dict[bytes, Known] = {}
        self._cold = Cold()
        self._line: deque[Held] = deque()
        self._packed: dict[Place, None] = {}
        self._unknown: dict[Place, int] = {}
        self._drops = Recent()
        self._begun = Recent()
        self.barred = Barred()
        self._count = 0

    @property
    def size(self) -> int:
        """How many sessions are held."""
        return self.hot + self._cold.size

    @property
    def sizes(self) -> Mapping[str, int]:
        """How much there is of each kind of thing."""
        questions = len(self.requests) + len(self.bodies)
        return {
            "hot": self.hot,
            "resting": self._cold.size,
            "members": len(self._packed),
            "questions": questions,
            "tenants": len(self.rooms),
        }

    def verdict(self, tenant: str, session_id: str) -> Held | None:
        """The verdict held for a session, if memory may be trusted."""
        return self.last(tenant, session_id) if self.trusted else None

    def last(self, tenant: str, session_id: str) -> Held | None:
        """The verdict held for a session, trusted or not: when it last beat is true in any case."""
        room = self.rooms.get(tenant)
        held = room.held.get(session_id) if room is not None else None
        return held or self.recall(tenant, session_id)

    def recall(self, tenant: str, session_id: str) -> Held | None:
        """Make a resting verdict an object again, as if it had never been anything else; None when none stands."""
        rested = self._cold.take(tenant, session_id)
        if rested is None:
            return None
        room = self._room(tenant)
        member = room.members.get(rested.member_id)
        if member is None:
            member = room.members[rested.member_id] = Member(rested.member_id, rested.generation, rested.open)
        elif member.generation != rested.generation:
            return None
        held = Held(member, rested.policy, rested.asked, rested.until, rested.device, rested.flags, rested.rest)
        self._add(room, session_id, held)
        return held

    def known(self, tenant: str, session_id: str) -> Snapshot | None:
        """The member of a session that has a verdict, if memory may be trusted."""
        return self.stale(tenant, session_id) if self.trusted else None

    def stale(self, tenant: str, session_id: str) -> Snapshot | None:
        """The member of a session as it was last seen, for when no store answers; None, too, when all of its sessions rested."""
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
        if there is not None and there.generation != snapshot.generation:
            self._forget(tenant, member_id)
            there = None
        if there is None:
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
            self._cold.take(tenant, session_id)
        else:
            before.flags |= DEAD
            self.hot -= 1
        self._add(room, session_id, held)

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
            self._cold.drop(tenant, member_id)  # sessions of it may rest that were last looked at before
            return False
        self.drop(tenant, member_id)
        return member is not None

    def drop_all(self) -> None:
        """Forget everything, when it is not known what has changed; whoever keeps a verdict learns that it is over."""
        self._count += 1
        for held in self._line:  # a few milliseconds for all that are hot
            held.flags |= DEAD
        self._drops.note_all(self._count)
        self._begun.note_all(self._count)
        self._unknown.clear()
        self._packed.clear()
        self._line.clear()
        self._cold.clear()
        self.rooms.clear()
        self.requests.clear()
        self.bodies.clear()
        self.hot = 0

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
        self._cold.drop(tenant, member_id)
        room = self.rooms.get(tenant)
        member = room.members.pop(member_id, None) if room else None
        if room is None or member is None:
            return
        self._packed.pop((tenant, member_id), None)
        for session_id in member.sessions:
            held = room.held.pop(session_id, None)
            if held is not None:
                held.flags |= DEAD
                self.hot -= 1

    def _add(self, room: Room, session_id: str, held: Held) -> None:
        """Hold an object, after others have made room for it."""
        member = held.member
        held.id, held.noted = session_id, held.until
        room.held[session_id] = held
        if session_id not in member.sessions:
            member.sessions = (*member.sessions, session_id)
        self.hot += 1
        self._make_room()
        self._line.append(held)

    def _make_room(self) -> None:
        """Let those rest that were held longest ago; the ones whose time has moved since are used, and have to wait again."""
        line, chances = self._line, SECOND_CHANCES
        while len(line) >= MOST_HOT:
            held = line.popleft()
            if held.flags & DEAD:
                continue
            if held.until != held.noted and chances:
                held.noted = held.until
                line.append(held)
                chances -= 1
            else:
                self._put_to_rest(held)
        if self.size > MOST_SESSIONS:
            self._cold.shed()

    def _put_to_rest(self, held: Held) -> None:
        """Keep what a plain allow needs to be given again. Of a refusal nothing: it stands for half a minute at most."""
        tenant, member = held.policy.tenant, held.member
        room = self.rooms[tenant]
        del room.held[held.id]
        self.hot -= 1
        if held.other is None:
            self._cold.put(tenant, held.id, _rested(held))
        held.flags |= DEAD
        if len(member.sessions) > 1:
            member.sessions = tuple(each for each in member.sessions if each != held.id)
        else:
            del room.members[member.id]
            self._packed.pop((tenant, member.id), None)


def _rested(held: Held) -> Rested:
    of = held.member
    return Rested(
        of.id, of.generation, of.open, held.policy, held.asked, held.until, held.device, held.flags, held.rest
    )
