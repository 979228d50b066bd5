"""The evaluation of a check whose verdict is not held: what is known is read, judged on the freshest state, and held."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from accessguard.devices.cookie import DeviceTokens
from accessguard.errors import GuardError
from accessguard.geo import Geo
from accessguard.guard.aftermath import NOTHING, Aftermath, Left
from accessguard.guard.bars import Bars
from accessguard.guard.deadline import Deadline
from accessguard.guard.facts import from_ms, to_ms
from accessguard.guard.gathering import Gathering
from accessguard.guard.memory import BEATEN, EXEMPT, REFUSED, STEADY, Held, Memory, Other, asked_of
from accessguard.guard.model import Check, Verdict
from accessguard.guard.question import TTL_MS, Question, beat_of
from accessguard.guard.shown import Shown
from accessguard.guard.spooling import Spooling
from accessguard.guard.tally import Tally
from accessguard.guard.verdicts import barred, trace_step, undecided, unknown, verdict_of
from accessguard.policies.book import PolicyBook
from accessguard.policies.model import Policy
from accessguard.rules.model import Access, Code, Decision, Outcome
from accessguard.rules.needs import STORED, WIDE, Need
from accessguard.rules.networks import address
from accessguard.sessions.activity import ActivityLog
from accessguard.sessions.live import Live, Pulse, Ticked
from accessguard.sessions.model import BEAT_MS, Snapshot
from accessguard.sessions.store import Asked, SessionStore

QUERY_S: Final = 1.0
"""How long a reading goes on that others may be waiting for, after whoever began it has been answered."""
READINGS: Final = 5
"""Readings under way: half of the pool's connections, and as many failures as it takes to leave PostgreSQL alone."""
MOST_READ: Final = 32
"""Members in one reading: about a millisecond in which they are decoded, and nobody else is answered."""
MOST_READ_WIDE: Final = 16
"""The same of those with more of their past."""
STORE_SHARE: Final = 0.7
"""Of the deadline, what PostgreSQL may take; the rest is for Valkey, should there be no answer."""
LIVE_SHARE: Final = 0.5
"""Of the time that is left, what Valkey may take; the other half is for PostgreSQL, should there be no answer."""
ANY: Final = ""
"""The kind of no interaction; it is not kept."""
AGEING: Final = Need.NETWORKS | Need.CASES
"""What changes without a new generation of the member."""
MOST_LOADS: Final = 5
"""What is read is read again when it changed meanwhile; a verdict on the last snapshot is not held."""

MOST_BEATS: Final = 120
"""A steady verdict is made anew after so many beats: an hour of steady use."""

Read: TypeAlias = tuple[Snapshot, int]
"""A snapshot, and the moment of the worker's memory before it was read."""

Load: TypeAlias = tuple[str, str, int]
"""A reading under way: of a tenant's session, with these parts of its member's past."""


class Evaluation:
    """Reads, judges, writes what was found, and holds the verdict."""

    def __init__(
        self,
        *,
        store: SessionStore,
        live: Live,
        book: PolicyBook,
        memory: Memory,
        aftermath: Aftermath,
        tally: Tally,
        tokens: DeviceTokens,
        shown: Shown,
        activity: ActivityLog,
        geo: Geo,
        spooling: Spooling,
        bars: Bars,
    ) -> None:
        self._store = store
        self._spooling = spooling
        self._bars = bars
        self._live = live
        self._book = book
        self._memory = memory
        self._aftermath = aftermath
        self._tally = tally
        self._tokens = tokens
        self._shown = shown
        self._activity = activity
        self._geo = geo
        self._loading: dict[Load, asyncio.Task[Read | None]] = {}
        self._readings = Gathering(self._read_all, at_once=READINGS, most=MOST_READ, patience_s=QUERY_S)
        self._wide_readings = Gathering(self._read_all, at_once=READINGS, most=MOST_READ_WIDE, patience_s=QUERY_S)
        self._leaving: set[asyncio.Task[Left]] = set()

    async def finish(self, within_s: float) -> None:
        """Wait for what is still being written though nobody waits for it."""
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=within_s)

    async def verdict(self, tenant: str, asked: Check, now_ms: int, deadline: Deadline) -> Verdict:
        """Decide on one request anew. Raises GuardError(UNAVAILABLE) when not even the tenant's choice is known."""
        policy = self._book.held(tenant)
        if policy is not None:
            return await self._under(policy, asked, now_ms, deadline)
        try:
            policy = await deadline.within(self._book.policy(tenant), share=LIVE_SHARE)
        except GuardError:
            policy = self._book.last(tenant)
            if policy is None:
                raise
            return msgspec.structs.replace(await self._under(policy, asked, now_ms, deadline), degraded=True)
        return unknown(asked.session_id) if policy is None else await self._under(policy, asked, now_ms, deadline)

    async def _under(self, policy: Policy, asked: Check, now_ms: int, deadline: Deadline) -> Verdict:
        """Decide by these rules."""
        try:
            found = await self._known(policy, asked, now_ms, deadline)
        except GuardError:
            return await self._in_outage(policy, asked, now_ms, deadline)
        question = self._question(policy, found, asked, now_ms, deadline)
        return unknown(asked.session_id) if question is None else await self._verdict(question)

    async def _in_outage(self, policy: Policy, asked: Check, now_ms: int, deadline: Deadline) -> Verdict:
        """Decide with PostgreSQL out: on what was last known and on Valkey; with that out as well an allow stands while memory is fresh."""
        tenant = policy.tenant
        code, sure = await self._barred(tenant, asked, deadline)
        stale = self._memory.stale(tenant, asked.session_id) or await self._waiting(tenant, asked, deadline)
        if code is not None and (stale is None or not kept_out(stale, asked.session_id)):
            return barred(asked.session_id, policy, code)
        if stale is None:
            return undecided(asked.session_id, policy)
        question = self._question(policy, (stale, self._memory.moment()), asked, now_ms, deadline)
        verdict = unknown(asked.session_id) if question is None else await self._verdict(question)
        return verdict if sure or verdict.outcome is not Outcome.ALLOW else undecided(asked.session_id, policy)

    def _question(
        self, policy: Policy, found: Read | None, asked: Check, now_ms: int, deadline: Deadline
    ) -> Question | None:
        session = found[0].session(asked.session_id) if found else None
        if found is None or session is None:
            return None
        question = Question(policy, found[0], session, asked, now_ms, since=found[1], deadline=deadline)
        held = self._memory.last(policy.tenant, asked.session_id)
        if held is not None and held.flags & BEATEN:
            question.live_ms[session.id] = held.until - BEAT_MS
        question.recognise(self._tokens, self._geo)
        if question.first_shown is not None:
            self._shown.note(policy.tenant, *question.first_shown)
        return question

    async def _barred(self, tenant: str, asked: Check, deadline: Deadline) -> tuple[Code | None, bool]:
        """Why an operator keeps the session out, with PostgreSQL out, and whether there can be no other reason.

        By what this worker knows when Valkey takes too long, which is all there is only while it is fresh.
        """
        with contextlib.suppress(GuardError):
            return await deadline.within(self._bars.on(tenant, asked.session_id), share=LIVE_SHARE), True
        return self._bars.here(tenant, asked.session_id), self._memory.trusted or self._bars.current

    async def _waiting(self, tenant: str, asked: Check, deadline: Deadline) -> Snapshot | None:
        """The member of a session whose login PostgreSQL does not have yet."""
        with contextlib.suppress(GuardError):
            return await deadline.within(self._spooling.of_session(tenant, asked.session_id, out=True))
        return None

    async def _known(self, policy: Policy, asked: Check, now_ms: int, deadline: Deadline) -> Read | None:
        """The member of a session, from memory or PostgreSQL; one query at a time, however many ask."""
        tenant, session_id = policy.tenant, asked.session_id
        known = self._memory.known(tenant, session_id)
        if known is not None and known.session(session_id) is not None and enough(known, policy, asked, now_ms):
            self._tally.evaluated += 1
            return known, self._memory.moment()
        self._tally.loaded += 1
        if self._memory.unknown(tenant, session_id, now_ms):
            return None
        place = (tenant, session_id, policy.needs)
        loading = self._loading.get(place)
        if loading is None:
            loading = asyncio.create_task(self._load(policy, session_id, now_ms))
            self._loading[place] = loading
            loading.add_done_callback(lambda done: self._loaded(place, done))
        return await deadline.within(asyncio.shield(loading), share=STORE_SHARE)

    def _loaded(self, place: Load, done: asyncio.Task[Read | None]) -> None:
        self._loading.pop(place, None)
        if not done.cancelled():
            done.exception()  # whoever waited has it; with nobody waiting it is of no use

    async def _load(self, policy: Policy, session_id: str, now_ms: int) -> Read | None:
        tenant, needs = policy.tenant, policy.needs
        for again in range(MOST_LOADS, -1, -1):
            since = self._memory.moment()
            snapshot = await self._together(policy, session_id, now_ms)
            if snapshot is None:
                if again and self._memory.begun(tenant, session_id, since):
                    continue
                waiting = await self._spooling.of_session(tenant, session_id)
                if waiting is not None:
                    return waiting, since
                self._memory.learn_unknown(tenant, session_id, now_ms)
                return None
            if not again or not self._memory.changed(tenant, snapshot.member_id, since):
                return (msgspec.structs.replace(snapshot, read_ms=now_ms) if needs & AGEING else snapshot), since
        return None

    async def _together(self, policy: Policy, session_id: str, now_ms: int) -> Snapshot | None:
        """Read with whoever reads at the same time."""
        if not policy.needs & WIDE:
            return await self._readings.ask(Asked(policy.tenant, session_id))
        since = from_ms(now_ms) - policy.reach
        return await self._wide_readings.ask(Asked(policy.tenant, session_id, policy.needs & STORED, since))

    async def _read_all(self, asked: Sequence[Asked]) -> Sequence[Snapshot | None]:
        return await self._store.snapshots(asked, timeout_s=QUERY_S)

    async def _verdict(self, question: Question) -> Verdict:
        if question.closed is Code.SESSION_EXPIRED and not question.blocked:
            question = await self._looked_again(question)
        if question.may_come_back:
            question = await self._came_back(question)
        closed = question.closed
        if closed is not None and not question.blocked:
            decision = Decision(outcome=Outcome.DENY, code=closed)
            verdict = verdict_of(decision, question.snapshot, question.policy, question.session)
            self._hold(question, Other(verdict=verdict), until=question.now_ms + BEAT_MS, flags=REFUSED)
            return verdict
        decision, last_ms = await self._judge(question)
        return await self._answer(question, decision, last_ms)

    async def _looked_again(self, question: Question) -> Question:
        """What seems over may have been used elsewhere: PostgreSQL is asked, and Valkey for the last second."""
        policy, asked, now_ms, deadline = question.policy, question.asked, question.now_ms, question.deadline
        with contextlib.suppress(GuardError):
            found = await deadline.within(self._load(policy, asked.session_id, now_ms), share=LIVE_SHARE)
            question = self._question(policy, found, asked, now_ms, deadline) or question
        with contextlib.suppress(GuardError):
            place = (question.snapshot.tenant, question.snapshot.member_id, asked.session_id)
            asking = self._live.pulse(*place, now_ms=0, known_ms=question.last_ms, kind=None)
            pulse = await deadline.within(asking, share=LIVE_SHARE)
            question.hear(pulse.live, question.kinds)
        return question

    async def _came_back(self, question: Question) -> Question:
        """Of logins of one browser at once, the session that it kept goes on in place of the last one."""
        policy, asked, now_ms, deadline = question.policy, question.asked, question.now_ms, question.deadline
        with contextlib.suppress(GuardError):
            if await deadline.within(self._aftermath.came_back(question)):
                found = await deadline.within(self._load(policy, asked.session_id, now_ms), share=LIVE_SHARE)
                question = self._question(policy, found, asked, now_ms, deadline) or question
        return question

    async def _judge(self, question: Question) -> tuple[Decision, int]:
        """Judge on the freshest state that the beat brings; the decision, and last activity (ms, 0: never).

        The interaction is recorded only for a session that may go on: one that
        is refused must not win a better place by trying.
        """
        first = question.decision()
        beats = question.due and first.outcome is Outcome.ALLOW
        try:
            if question.steady(first):
                done = await self._steadily(question) if beats else question.last_ms
                if done is not None:
                    return first, done
            return await self._with_all(question, first, beats=beats)
        except GuardError:
            return await self._without_live(question)

    async def _steadily(self, question: Question) -> int | None:
        """Beat where nothing that the beat could tell matters; last activity, None where it did not go so easily."""
        heard: asyncio.Future[tuple[Ticked, int]] = asyncio.get_running_loop().create_future()

        def hear(answer: Any) -> None:
            ticked = self._live.ticked(answer)
            if not heard.done():
                heard.set_result(ticked)

        snapshot, times = question.snapshot, (question.now_ms, question.last_ms, question.snapshot.open)
        self._live.tick(
            snapshot.tenant,
            snapshot.member_id,
            question.session.id,
            times,
            hear,
        )
        ticked, before_ms = await question.deadline.within(heard, share=LIVE_SHARE)
        if ticked == Ticked.MOVED:
            self._moved(question)
            return question.now_ms
        self._tally.early += ticked == Ticked.EARLY
        return before_ms if ticked == Ticked.EARLY else None

    async def _with_all(self, question: Question, first: Decision, *, beats: bool) -> tuple[Decision, int]:
        """Beat, and judge on everybody's last activity."""
        before = question.last_ms
        snapshot, now_ms = question.snapshot, question.now_ms if beats else 0
        place = (snapshot.tenant, snapshot.member_id, question.session.id)
        kind = (question.asked.activity or ANY) if question.policy.by_activity else None
        asking = self._live.pulse(*place, now_ms=now_ms, known_ms=before, kind=kind)
        pulse = await question.deadline.within(asking, share=LIVE_SHARE)
        await self._tidied(question, pulse)
        decision = question.decision() if question.hear(pulse.live, pulse.kinds) else first
        if pulse.moved and decision.outcome is not Outcome.ALLOW:
            was = None if kind is None else pulse.kinds.get(question.session.id, ANY)
            await self._quietly(question, self._live.take_back(*place, pulse.before_ms, kind=was))
            return decision, pulse.before_ms
        if not pulse.moved:
            self._tally.early += beats
            return decision, max(before, pulse.before_ms)
        self._moved(question)
        return decision, question.now_ms

    async def _tidied(self, question: Question, pulse: Pulse) -> None:
        """Tell Valkey what is known here when it knew nothing, and let go of what is long over."""
        if pulse.cold:
            await self._quietly(question, self._warm(question))
        over = question.now_ms - 2 * BEAT_MS
        gone = [each for each, at in pulse.live.items() if at < over and question.snapshot.session(each) is None]
        if gone:
            self._live.forget(question.snapshot.tenant, question.snapshot.member_id, gone)

    async def _without_live(self, question: Question) -> tuple[Decision, int]:
        """Valkey is out: what PostgreSQL has, and the beat straight to PostgreSQL, which tests the 30 s itself.

        With PostgreSQL out as well: what is in memory; the beat waits there too.
        """
        try:
            reading = self._together(question.policy, question.session.id, question.now_ms)
            fresh = await question.deadline.within(reading)
        except GuardError:
            return self._alone(question, msgspec.structs.replace(question.decision(), degraded=True))
        session = fresh.session(question.session.id) if fresh else None
        if fresh is not None and session is not None:
            question.renew(fresh, session)
            question.recognise(self._tokens, self._geo)
        return self._alone(question, question.decision())

    def _alone(self, question: Question, decision: Decision) -> tuple[Decision, int]:
        """The decision, and the interaction kept by this worker when it counts."""
        if not question.due or decision.outcome is not Outcome.ALLOW:
            return decision, question.last_ms
        self._moved(question)
        return decision, question.now_ms

    async def _quietly(self, question: Question, telling: Awaitable[None]) -> None:
        """Tell Valkey something that it will be told again if it does not hear it now."""
        with contextlib.suppress(GuardError):
            await question.deadline.within(telling, share=LIVE_SHARE)

    async def _warm(self, question: Question) -> None:
        snapshot, live_ms = question.snapshot, question.live_ms
        stored = {s.id: to_ms(s.last_activity_at) for s in snapshot.sessions if s.last_activity_at}
        newest = {sid: max(stored.get(sid, 0), live_ms.get(sid, 0)) for sid in stored | live_ms}
        if newest:
            await self._live.seed(snapshot.tenant, snapshot.member_id, newest)

    def _moved(self, question: Question) -> None:
        self._tally.moved += 1
        question.live_ms[question.session.id] = question.now_ms
        snapshot = question.snapshot
        self._activity.add(beat_of(snapshot.tenant, snapshot.member_id, question.asked, question.now_ms))

    async def _answer(self, question: Question, decision: Decision, last_ms: int) -> Verdict:
        """See to what the decision leaves behind, then hold and answer the verdict."""
        left = await self._left(question, decision)
        denied = decision.outcome is not Outcome.ALLOW
        now_ms, holds_ms = question.now_ms, question.holds_ms(decision)
        end_ms = question.end_ms(last_ms)
        good_ms = min(end_ms, holds_ms)
        verdict = msgspec.structs.replace(
            verdict_of(decision, question.snapshot, question.policy, question.session),
            degraded=decision.degraded or left.lost or question.snapshot.waits,
            violation_id=left.violation_id if denied else None,
            challenge_id=left.challenge_id,
            ttl_ms=0 if denied else max(0, min(TTL_MS, good_ms - now_ms)),
            trace=tuple(trace_step(step) for step in decision.steps) if question.asked.explain else (),
        )
        beaten = last_ms + BEAT_MS > now_ms
        until = min(
            (min(last_ms, now_ms) if beaten and not denied else now_ms) + BEAT_MS,
            min(end_ms - TTL_MS, holds_ms) if denied else good_ms - TTL_MS,
            question.frees_ms(decision),
        )
        self._hold(
            question,
            None if plain(verdict) else Other(verdict=untraced(verdict), found=left.found if denied else ()),
            until=now_ms if left.lost else until,
            flags=REFUSED if denied else flags_of(beaten=beaten, steady=question.steady(decision)),
            rest=(end_ms - TTL_MS - until) // (question.policy.gap_ms + BEAT_MS),
        )
        return verdict

    async def _left(self, question: Question, decision: Decision) -> Left:
        """What the decision leaves behind; what is not written in time is written all the same, but not waited for."""
        if not self._aftermath.concerns(question, decision):
            return NOTHING
        leaving = asyncio.create_task(self._aftermath.of(question, decision))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        done, _ = await asyncio.wait({leaving}, timeout=question.deadline.left_s)
        if done:
            return leaving.result()
        question.deadline.missed()
        return Left(lost=True)

    def _hold(self, question: Question, other: Other | None, *, until: int, flags: int, rest: int = 0) -> None:
        snapshot, session = question.snapshot, question.session
        self._memory.barred.read(snapshot.tenant, session.id, snapshot.generation, blocked=question.blocked)
        member = self._memory.member(snapshot, question.since)
        if member is None:
            return
        exempt = EXEMPT if other is None and question.exempt else 0
        held = Held(
            member=member,
            policy=question.policy,
            asked=asked_of(question.asked, question.policy),
            until=until,
            device=msgspec.json.encode(session.device_id),
            flags=flags | exempt,
            rest=max(0, min(MOST_BEATS, rest)),
            other=other,
        )
        self._memory.hold(snapshot.tenant, session.id, held)


def kept_out(known: Snapshot, session_id: str) -> bool:
    """Whether a member's snapshot says by itself that a session has ended, or is a blocked device's."""
    session = known.session(session_id)
    device = known.device(session.device_id) if session and session.device_id else None
    ended = session is not None and session.ended_at is not None
    return ended or (device is not None and device.access is Access.BLOCKED)


def flags_of(*, beaten: bool, steady: bool) -> int:
    """What is known of a verdict that allows."""
    return (BEATEN if beaten else 0) | (STEADY if steady else 0)


def enough(known: Snapshot, policy: Policy, asked: Check, now_ms: int) -> bool:
    """Whether a snapshot in memory has all that the rules look at, and is fresh enough for it.

    A new address is judged on what stands in PostgreSQL now.
    """
    needs = policy.needs
    if needs & STORED & ~known.parts:
        return False
    if not needs & AGEING:
        return True
    if now_ms - known.read_ms >= BEAT_MS:
        return False
    host = address(asked.ip)
    return not needs & Need.NETWORKS or host is None or known.past.was_at(asked.session_id, host.text)


def plain(verdict: Verdict) -> bool:
    """Whether a verdict is a plain allow, whose answer is made of three ids."""
    clear = verdict.outcome is Outcome.ALLOW and not verdict.degraded
    return clear and verdict.ttl_ms == TTL_MS and verdict.end_reason is None


def untraced(verdict: Verdict) -> Verdict:
    """The verdict as it is held: what was looked at is not kept."""
    return msgspec.structs.replace(verdict, trace=()) if verdict.trace else verdict
