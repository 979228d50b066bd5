"""May this session go on? From memory when nothing changed; else one beat, one evaluation; on a miss, one query."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

import msgspec

from accessguard.devices.cookie import DeviceTokens
from accessguard.errors import GuardError
from accessguard.guard.facts import Case, cases, from_ms, to_ms
from accessguard.guard.folds import Folds
from accessguard.guard.memory import Held, Known, Memory
from accessguard.guard.model import Check, Verdict
from accessguard.guard.question import Question
from accessguard.guard.tally import Tally
from accessguard.guard.verdicts import trace_step, undecided, unknown, verdict_of
from accessguard.policies.book import PolicyBook
from accessguard.rules.model import Decision, Outcome
from accessguard.sessions.activity import ActivityLog
from accessguard.sessions.live import Live, Pulse
from accessguard.sessions.model import BEAT_MS
from accessguard.sessions.store import SessionStore
from accessguard.violations.model import Found

TTL_MS: Final = 5_000
QUERY_S: Final = 1.0


class Checks:
    """The hot path. One of these is in every worker."""

    def __init__(
        self,
        *,
        store: SessionStore,
        live: Live,
        book: PolicyBook,
        memory: Memory,
        folds: Folds,
        activity: ActivityLog,
        tokens: DeviceTokens,
        new_id: Callable[[], UUID],
        seconds: Callable[[], float],
    ) -> None:
        self._store = store
        self._live = live
        self._book = book
        self._folds = folds
        self._activity = activity
        self._tokens = tokens
        self._new_id = new_id
        self._seconds = seconds
        self.memory = memory
        self.tally = Tally()
        self._loading: dict[tuple[str, str], asyncio.Task[Known | None]] = {}

    def peek(self, tenant: str, asked: Check, now_ms: int) -> Held | None:
        """The verdict in memory, when it still holds for exactly this question."""
        held = self.memory.verdict(tenant, asked.session_id)
        if held is None or asked.explain or not held.fits(asked, now_ms) or held.policy is not self._book.held(tenant):
            return None
        return held

    def answered(self, held: Held, now_ms: int) -> None:
        """Count an answer given from memory; a repeated refusal is one more hit of its cases."""
        self.tally.held(held.verdict)
        for found in held.found:
            self._folds.again(held.policy.tenant, msgspec.structs.replace(found, at=from_ms(now_ms)))

    async def check(self, tenant: str, asked: Check, now_ms: int) -> Verdict:
        """Decide on one request. Raises GuardError(UNAVAILABLE) when not even the tenant's choice is known."""
        held = self.peek(tenant, asked, now_ms)
        if held is not None:
            self.answered(held, now_ms)
            return held.verdict
        return await self.decide(tenant, asked, now_ms)

    async def decide(self, tenant: str, asked: Check, now_ms: int) -> Verdict:
        """Decide anew. Raises GuardError(UNAVAILABLE)."""
        began = self._seconds()
        verdict = await self._decide(tenant, asked, now_ms)
        self.tally.took(self._seconds() - began)
        self.tally.made(verdict)
        return verdict

    async def _decide(self, tenant: str, asked: Check, now_ms: int) -> Verdict:
        policy = self._book.held(tenant) or await self._book.policy(tenant)
        if policy is None:
            return unknown(asked.session_id)
        try:
            known = await self._known(tenant, asked.session_id, now_ms)
        except GuardError:
            known = self.memory.stale(tenant, asked.session_id)
            if known is None:
                return undecided(asked.session_id, policy)
        session = known.snapshot.session(asked.session_id) if known else None
        if known is None or session is None:
            return unknown(asked.session_id)
        question = Question(policy, known, session, asked, now_ms)
        question.recognise(self._tokens)
        return await self._verdict(question)

    async def _known(self, tenant: str, session_id: str, now_ms: int) -> Known | None:
        """The member of a session, from memory or PostgreSQL; one query at a time, however many ask."""
        known = self.memory.known(tenant, session_id)
        if known is not None:
            self.tally.evaluated += 1
            return known
        self.tally.loaded += 1
        if self.memory.unknown(tenant, session_id, now_ms):
            return None
        place = (tenant, session_id)
        loading = self._loading.get(place)
        if loading is None:
            loading = asyncio.create_task(self._load(tenant, session_id, now_ms))
            self._loading[place] = loading
            loading.add_done_callback(lambda done: self._loaded(place, done))
        return await asyncio.shield(loading)

    def _loaded(self, place: tuple[str, str], done: asyncio.Task[Known | None]) -> None:
        self._loading.pop(place, None)
        if not done.cancelled():
            done.exception()  # whoever waited has it; with nobody waiting it is of no use

    async def _load(self, tenant: str, session_id: str, now_ms: int) -> Known | None:
        while True:
            since = self.memory.moment() + 1
            snapshot = await self._store.snapshot(tenant, session_id, timeout_s=QUERY_S)
            if snapshot is None:
                self.memory.learn_unknown(tenant, session_id, now_ms)
                return None
            known = self.memory.learn(snapshot, since)
            if known is not None:
                return known

    async def _verdict(self, question: Question) -> Verdict:
        closed = question.closed
        if closed is not None and not question.blocked:
            decision = Decision(outcome=Outcome.DENY, code=closed)
            verdict = verdict_of(decision, question.snapshot, question.policy, question.session)
            self._hold(question, verdict, beat_at=question.now_ms + BEAT_MS, until=question.now_ms + BEAT_MS)
            return verdict
        decision, last_ms = await self._judge(question)
        return await self._answer(question, decision, last_ms)

    async def _judge(self, question: Question) -> tuple[Decision, int]:
        """Judge on the freshest state that the beat brings; the decision, and last activity (ms, 0: never).

        The interaction is recorded only for a session that may go on: one that
        is refused must not win a better place by trying.
        """
        before = question.last_ms
        first = question.decision()
        beats = question.due and first.outcome is Outcome.ALLOW
        try:
            pulse = await self._pulse(question, beats=beats, known_ms=before)
        except GuardError:
            return await self._without_live(question)
        if pulse.cold:
            await self._quietly(self._warm(question.known))
        decision = question.decision() if question.known.hear(pulse.live, but=question.session.id) else first
        if pulse.moved and decision.outcome is not Outcome.ALLOW:
            snapshot = question.snapshot
            place = (snapshot.tenant, snapshot.member_id, question.session.id)
            await self._quietly(self._live.take_back(*place, pulse.before_ms))
            return decision, pulse.before_ms
        if not pulse.moved:
            self.tally.early += beats
            return decision, max(before, pulse.before_ms)
        self._moved(question)
        return decision, question.now_ms

    async def _pulse(self, question: Question, *, beats: bool, known_ms: int) -> Pulse:
        snapshot = question.snapshot
        now_ms = question.now_ms if beats else 0
        return await self._live.pulse(
            snapshot.tenant, snapshot.member_id, question.session.id, now_ms=now_ms, known_ms=known_ms
        )

    async def _without_live(self, question: Question) -> tuple[Decision, int]:
        """Valkey is out: what PostgreSQL has, and the beat straight to PostgreSQL, which tests the 30 s itself."""
        try:
            fresh = await self._store.snapshot(question.snapshot.tenant, question.session.id, timeout_s=QUERY_S)
        except GuardError:
            return msgspec.structs.replace(question.decision(), degraded=True), question.last_ms
        session = fresh.session(question.session.id) if fresh else None
        if fresh is not None and session is not None:
            newer = Known(fresh)
            newer.live_ms = question.known.live_ms
            renewed = Question(question.policy, newer, session, question.asked, question.now_ms)
            renewed.recognise(self._tokens)
        else:
            renewed = question
        decision = renewed.decision()
        if not renewed.due or decision.outcome is not Outcome.ALLOW:
            return decision, renewed.last_ms
        self._moved(question)
        return decision, question.now_ms

    async def _quietly(self, telling: Awaitable[None]) -> None:
        """Tell Valkey something that it will be told again if it does not hear it now."""
        with contextlib.suppress(GuardError):
            await telling

    async def _warm(self, known: Known) -> None:
        """Valkey knew nothing of this member: tell it what is known here."""
        snapshot = known.snapshot
        stored = {s.id: to_ms(s.last_activity_at) for s in snapshot.sessions if s.last_activity_at}
        newest = {sid: max(stored.get(sid, 0), known.live_ms.get(sid, 0)) for sid in stored | known.live_ms}
        if newest:
            await self._live.seed(snapshot.tenant, snapshot.member_id, newest)

    def _moved(self, question: Question) -> None:
        beat = question.beat()
        if beat is not None:
            self.tally.moved += 1
            question.known.live_ms[question.session.id] = question.now_ms
            self._activity.add(beat)

    async def _answer(self, question: Question, decision: Decision, last_ms: int) -> Verdict:
        """Write what was found, then hold and answer the verdict."""
        found = self._found(question, decision)
        violation_id, lost = await self._recorded(question.snapshot.tenant, found, decision) if found else (None, False)
        denied = decision.outcome is not Outcome.ALLOW
        end_ms, now_ms = question.end_ms(last_ms), question.now_ms
        verdict = msgspec.structs.replace(
            verdict_of(decision, question.snapshot, question.policy, question.session),
            degraded=decision.degraded or lost,
            violation_id=violation_id if denied else None,
            ttl_ms=0 if denied else max(0, min(TTL_MS, end_ms - now_ms)),
            trace=tuple(trace_step(step) for step in decision.steps) if question.asked.explain else (),
        )
        if not lost:
            until = min(now_ms + BEAT_MS, end_ms - TTL_MS, question.frees_ms(decision))
            beat_at = until if denied else last_ms + BEAT_MS
            self._hold(question, verdict, beat_at=beat_at, until=until, found=found if denied else ())
        return verdict

    def _found(self, question: Question, decision: Decision) -> tuple[Found, ...]:
        number = cases(decision)
        if number == 0:
            return ()
        case = Case(
            member_id=question.snapshot.member_id,
            session_id=question.session.id,
            device_id=question.device.id if question.device else question.session.device_id,
            address=question.address,
            now=from_ms(question.now_ms),
        )
        return case.found([self._new_id() for _ in range(number)], decision)

    async def _recorded(self, tenant: str, found: tuple[Found, ...], decision: Decision) -> tuple[UUID | None, bool]:
        """The case that decided, and whether the cases could not be written."""
        try:
            ids = await self._folds.record(tenant, found)
        except GuardError:
            return None, True
        mine = (each for each, case in zip(ids, found, strict=True) if case.code is decision.code)
        return next(mine, None), False

    def _hold(
        self, question: Question, verdict: Verdict, *, beat_at: int, until: int, found: tuple[Found, ...] = ()
    ) -> None:
        kept = msgspec.structs.replace(verdict, trace=()) if verdict.trace else verdict
        held = Held.of(kept, question.policy, question.asked, beat_at=beat_at, until=until, found=found)
        self.memory.hold(question.snapshot.tenant, question.known, question.session.id, held)
