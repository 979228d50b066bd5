"""May this session go on? From memory when nothing changed; else one beat, one evaluation; on a miss, one query."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

import msgspec

from accessguard.devices.cookie import DeviceTokens
from accessguard.errors import GuardError
from accessguard.guard.facts import Case, cases, device_fact, from_ms, gather, session_fact, to_ms
from accessguard.guard.folds import Folds
from accessguard.guard.memory import Held, Known, Memory
from accessguard.guard.model import Check, Verdict
from accessguard.guard.tally import Tally
from accessguard.guard.verdicts import trace_step, undecided, unknown, verdict_of
from accessguard.metrics import CHECK_SECONDS
from accessguard.policies.book import PolicyBook
from accessguard.policies.model import Policy
from accessguard.rules.engine import judge
from accessguard.rules.model import Access, Code, Decision, DeviceFact, Outcome, Stage
from accessguard.rules.networks import address
from accessguard.sessions.activity import ActivityLog
from accessguard.sessions.live import Live
from accessguard.sessions.model import BEAT_MS, IMPERSONATION, Beat, Session, Snapshot
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
        self.memory = memory
        self._folds = folds
        self._activity = activity
        self._tokens = tokens
        self._new_id = new_id
        self._seconds = seconds
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
        CHECK_SECONDS.observe(self._seconds() - began)
        self.tally.made(verdict)
        return verdict

    async def _decide(self, tenant: str, asked: Check, now_ms: int) -> Verdict:
        policy = await self._book.policy(tenant)
        if policy is None:
            return unknown(asked.session_id)
        try:
            known = await self._known(tenant, asked.session_id, now_ms)
        except GuardError:
            known = self.memory.stale(tenant, asked.session_id)
            if known is None:
                return undecided(asked.session_id, policy)
        if known is None:
            return unknown(asked.session_id)
        return await self._verdict(policy, known, asked, now_ms)

    async def _known(self, tenant: str, session_id: str, now_ms: int) -> Known | None:
        known = self.memory.known(tenant, session_id)
        if known is not None:
            self.tally.evaluated += 1
            return known
        self.tally.loaded += 1
        if self.memory.unknown(tenant, session_id, now_ms):
            return None
        return await self._load(tenant, session_id, now_ms)

    async def _load(self, tenant: str, session_id: str, now_ms: int) -> Known | None:
        """One query at a time for a session, however many ask."""
        place = (tenant, session_id)
        loading = self._loading.get(place)
        if loading is None:
            loading = asyncio.create_task(self._fetch(tenant, session_id, now_ms))
            self._loading[place] = loading
            loading.add_done_callback(lambda done: self._loaded(place, done))
        return await asyncio.shield(loading)

    def _loaded(self, place: tuple[str, str], done: asyncio.Task[Known | None]) -> None:
        self._loading.pop(place, None)
        if not done.cancelled():
            done.exception()

    async def _fetch(self, tenant: str, session_id: str, now_ms: int) -> Known | None:
        while True:
            since = self.memory.moment() + 1
            snapshot = await self._store.snapshot(tenant, session_id, timeout_s=QUERY_S)
            if snapshot is None:
                self.memory.learn_unknown(tenant, session_id, now_ms)
                return None
            known = self.memory.learn(snapshot, since)
            if known is not None:
                return known

    async def _verdict(self, policy: Policy, known: Known, asked: Check, now_ms: int) -> Verdict:
        snapshot = known.snapshot
        session = snapshot.session(asked.session_id)
        if session is None:
            return unknown(asked.session_id)
        device = self._device(snapshot, session, asked)
        closed = _closed(session, policy, known, now_ms)
        blocked = device is not None and device.access is Access.BLOCKED
        if closed is not None and not blocked:
            verdict = verdict_of(Decision(outcome=Outcome.DENY, code=closed), snapshot, policy, session)
            self._hold(policy, known, asked, verdict, beat_at=now_ms + BEAT_MS, until=now_ms + BEAT_MS)
            return verdict
        decision, last_ms = await self._judge(policy, known, session, device, asked, now_ms)
        return await self._answer(policy, known, session, device, asked, decision, now_ms=now_ms, last_ms=last_ms)

    def _device(self, snapshot: Snapshot, session: Session, asked: Check) -> DeviceFact | None:
        """The session's device; another one of the member's whose token is shown counts when it is blocked."""
        claim = self._tokens.read(asked.device_token)
        shown = snapshot.device(claim.device_id) if claim else None
        if shown is not None and shown.access is Access.BLOCKED:
            return device_fact(shown)
        device = snapshot.device(session.device_id)
        return device_fact(device) if device else None

    async def _judge(
        self, policy: Policy, known: Known, session: Session, device: DeviceFact | None, asked: Check, now_ms: int
    ) -> tuple[Decision, int]:
        """Judge on the freshest state that the beat brings; the decision, and last activity (ms, 0: never)."""
        before = _last_ms(session, known)
        due = asked.activity is not None and session.method != IMPERSONATION and now_ms - before >= BEAT_MS
        first = self._judged(policy, known, session, device, asked, now_ms)
        beats = due and first.outcome is Outcome.ALLOW
        try:
            pulse = await self._live.pulse(
                known.snapshot.tenant,
                known.snapshot.member_id,
                session.id,
                now_ms=now_ms if beats else 0,
                known_ms=before,
            )
        except GuardError:
            return await self._without_live(policy, known, session, device, asked, now_ms, due=due)
        if pulse.cold:
            await self._warm(known)
        known.live_ms = {**known.live_ms, **pulse.live}
        decision = self._judged(policy, known, session, device, asked, now_ms)
        if pulse.moved and decision.outcome is not Outcome.ALLOW:
            await self._live.take_back(known.snapshot.tenant, known.snapshot.member_id, session.id, pulse.before_ms)
            return decision, pulse.before_ms
        if not pulse.moved:
            self.tally.early += beats
            return decision, max(before, pulse.before_ms)
        self._moved(known, session, asked, now_ms)
        return decision, now_ms

    async def _without_live(
        self,
        policy: Policy,
        known: Known,
        session: Session,
        device: DeviceFact | None,
        asked: Check,
        now_ms: int,
        *,
        due: bool,
    ) -> tuple[Decision, int]:
        """Valkey is out: what PostgreSQL has, and the beat straight to PostgreSQL, which tests the 30 s itself."""
        try:
            fresh = await self._store.snapshot(known.snapshot.tenant, session.id, timeout_s=QUERY_S)
        except GuardError:
            decision = self._judged(policy, known, session, device, asked, now_ms)
            return msgspec.structs.replace(decision, degraded=True), _last_ms(session, known)
        newer = known if fresh is None else _merged(fresh, known)
        decision = self._judged(policy, newer, newer.snapshot.session(session.id) or session, device, asked, now_ms)
        last = _last_ms(newer.snapshot.session(session.id) or session, newer)
        if not due or decision.outcome is not Outcome.ALLOW or now_ms - last < BEAT_MS:
            return decision, last
        self._moved(known, session, asked, now_ms)
        return decision, now_ms

    def _judged(
        self, policy: Policy, known: Known, session: Session, device: DeviceFact | None, asked: Check, now_ms: int
    ) -> Decision:
        facts = gather(
            known.snapshot,
            policy,
            now=from_ms(now_ms),
            stage=Stage.CHECK,
            session=session_fact(session, known.live_ms.get(session.id)),
            device=device,
            address=address(asked.ip),
            product_id=asked.product_id,
            live_ms=known.live_ms,
            impersonated=session.method == IMPERSONATION,
        )
        return judge(policy.rules, facts)

    async def _warm(self, known: Known) -> None:
        """Valkey knew nothing of this member: tell it what is known here."""
        stored = {s.id: to_ms(s.last_activity_at) for s in known.snapshot.sessions if s.last_activity_at}
        newest = {sid: max(stored.get(sid, 0), known.live_ms.get(sid, 0)) for sid in stored | known.live_ms}
        if newest:
            await self._live.seed(known.snapshot.tenant, known.snapshot.member_id, newest)

    def _moved(self, known: Known, session: Session, asked: Check, now_ms: int) -> None:
        if asked.activity is None:
            return
        self.tally.moved += 1
        known.live_ms[session.id] = now_ms
        where = address(asked.ip)
        self._activity.add(
            Beat(
                tenant=known.snapshot.tenant,
                member_id=known.snapshot.member_id,
                session_id=session.id,
                device_id=session.device_id,
                at=from_ms(now_ms),
                kind=asked.activity,
                resource=asked.resource,
                product_id=asked.product_id,
                ip=where.text if where else None,
            )
        )

    async def _answer(
        self,
        policy: Policy,
        known: Known,
        session: Session,
        device: DeviceFact | None,
        asked: Check,
        decision: Decision,
        *,
        now_ms: int,
        last_ms: int,
    ) -> Verdict:
        """Write what was found, then hold and answer the verdict."""
        snapshot = known.snapshot
        case = Case(
            member_id=snapshot.member_id,
            session_id=session.id,
            device_id=device.id if device else session.device_id,
            address=address(asked.ip),
            now=from_ms(now_ms),
        )
        found = case.found([self._new_id() for _ in range(cases(decision))], decision)
        violation_id, lost = await self._recorded(snapshot.tenant, found, decision)
        denied = decision.outcome is not Outcome.ALLOW
        end_ms = _end_ms(session, snapshot, policy, last_ms, now_ms)
        verdict = msgspec.structs.replace(
            verdict_of(decision, snapshot, policy, session),
            degraded=decision.degraded or lost,
            violation_id=violation_id if denied else None,
            ttl_ms=0 if denied else max(0, min(TTL_MS, end_ms - now_ms)),
            trace=tuple(trace_step(step) for step in decision.steps) if asked.explain else (),
        )
        if not lost:
            until = min(now_ms + BEAT_MS, end_ms - TTL_MS, _frees_ms(decision, now_ms))
            beat_at = until if denied else last_ms + BEAT_MS
            self._hold(policy, known, asked, verdict, beat_at=beat_at, until=until, found=found if denied else ())
        return verdict

    async def _recorded(self, tenant: str, found: Sequence[Found], decision: Decision) -> tuple[UUID | None, bool]:
        """The case that decided, and whether the cases could not be written."""
        try:
            ids = await self._folds.record(tenant, found)
        except GuardError:
            return None, True
        mine = (each for each, case in zip(ids, found, strict=True) if case.code is decision.code)
        return next(mine, None), False

    def _hold(
        self,
        policy: Policy,
        known: Known,
        asked: Check,
        verdict: Verdict,
        *,
        beat_at: int,
        until: int,
        found: tuple[Found, ...] = (),
    ) -> None:
        held = Held(msgspec.structs.replace(verdict, trace=()), policy, asked, beat_at=beat_at, until=until)
        held.found = found
        self.memory.hold(known.snapshot.tenant, known, asked.session_id, held)


def _closed(session: Session, policy: Policy, known: Known, now_ms: int) -> Code | None:
    """Why a session cannot go on by itself, before any rule."""
    if session.ended_at is not None:
        return Code.SESSION_ENDED
    return Code.SESSION_EXPIRED if now_ms >= _over_ms(session, policy, _last_ms(session, known)) else None


def _over_ms(session: Session, policy: Policy, last_ms: int) -> int:
    """When the session ends by itself: at its absolute end, or after too long without activity."""
    idle_since = max(last_ms, to_ms(session.started_at))
    return min(to_ms(session.expires_at), idle_since + policy.settings.session.idle_ttl_s * 1000)


def _end_ms(session: Session, snapshot: Snapshot, policy: Policy, last_ms: int, now_ms: int) -> int:
    """When the verdict ends at the latest: with the session, or with the member's exemption."""
    over = _over_ms(session, policy, last_ms)
    until = snapshot.checks_disabled_until
    if until is None or not snapshot.exempt(from_ms(now_ms)):
        return over
    return min(over, to_ms(until))


def _frees_ms(decision: Decision, now_ms: int) -> int:
    """When a refusal may be looked at again because a place frees by itself."""
    finding = decision.step.finding if decision.step else None
    if finding is None or finding.retry_at is None:
        return now_ms + BEAT_MS
    return max(now_ms, to_ms(finding.retry_at) + 1)


def _last_ms(session: Session, known: Known) -> int:
    stored = to_ms(session.last_activity_at) if session.last_activity_at else 0
    return max(stored, known.live_ms.get(session.id, 0))


def _merged(fresh: Snapshot, known: Known) -> Known:
    newer = Known(fresh)
    newer.live_ms = dict(known.live_ms)
    return newer
