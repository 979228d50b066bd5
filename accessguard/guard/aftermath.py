"""What the decision on a check leaves behind: cases, the use of an address, a challenge, the end of the session."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.challenges.model import Challenge
from accessguard.challenges.store import ChallengeStore
from accessguard.errors import GuardError
from accessguard.guard.changes import Changes
from accessguard.guard.facts import Case, cases, from_ms
from accessguard.guard.folds import Folds
from accessguard.guard.pending import LASTS
from accessguard.guard.plan import AT_ONCE
from accessguard.guard.question import Question
from accessguard.rules.model import Decision, Outcome, Place, Stage
from accessguard.rules.needs import Need
from accessguard.rules.sighting import Sighting, sighting
from accessguard.sessions.live import Change, Live
from accessguard.sessions.model import NetworkRow
from accessguard.sessions.networks import NetworkStore
from accessguard.sessions.store import SessionStore
from accessguard.violations.model import Found

WRITE_S: Final = 1.0
"""How long a check waits for a write that its answer speaks of."""


class Left(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is left: the case that decided, the challenge, every case; `lost` when something could not be written."""

    found: tuple[Found, ...] = ()
    violation_id: UUID | None = None
    challenge_id: UUID | None = None
    lost: bool = False


NOTHING: Final = Left()


class Aftermath:
    """Everything is written before the check is answered; what changes other verdicts is told to every worker."""

    def __init__(
        self,
        *,
        sessions: SessionStore,
        networks: NetworkStore,
        challenges: ChallengeStore,
        folds: Folds,
        live: Live,
        changes: Changes,
        new_id: Callable[[], UUID],
    ) -> None:
        self._sessions = sessions
        self._networks = networks
        self._challenges = challenges
        self._folds = folds
        self._live = live
        self._changes = changes
        self._new_id = new_id

    def concerns(self, question: Question, decision: Decision) -> bool:
        """Whether there may be anything to see to; nearly always there is not."""
        return cases(decision) > 0 or bool(question.policy.needs & Need.NETWORKS)

    async def of(self, question: Question, decision: Decision) -> Left:
        """See to everything that a decision leaves behind."""
        found = self._found(question, decision)
        left = await self._recorded(question, found, decision)
        try:
            await self._noted(question, decision)
            if decision.outcome is Outcome.CHALLENGE:
                challenge = await self._challenges.make(question.policy.tenant, self._put(question, decision, left))
                left = msgspec.structs.replace(left, challenge_id=challenge.id)
            if decision.ends:
                await self._end(question, decision)
        except GuardError:
            return msgspec.structs.replace(left, lost=True)
        return left

    async def came_back(self, question: Question) -> bool:
        """Open a session again that a login at the same instant replaced; whether it goes on.

        Raises GuardError(UNAVAILABLE) when PostgreSQL is out of reach.
        """
        tenant, session_id, now = question.policy.tenant, question.session.id, from_ms(question.now_ms)
        closed = await self._sessions.come_back(tenant, session_id, at=now, since=now - AT_ONCE)
        if closed is None:
            return False
        self._live.forget(tenant, question.snapshot.member_id, closed)
        await self._tell(question, "session_started", session_id, *closed)
        return True

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

    async def _recorded(self, question: Question, found: tuple[Found, ...], decision: Decision) -> Left:
        """The cases, written; where an action grows with them, a new one changes what others are told."""
        if not found:
            return NOTHING
        try:
            ids = await self._folds.record(question.policy.tenant, found)
        except GuardError:
            return Left(found=found, lost=True)
        if any(each == case.id for each, case in zip(ids, found, strict=True)):
            if question.policy.needs & Need.CASES:
                await self._tell(question, "case_opened")
            else:
                await self._changes.announce_news(question.policy.tenant)
        mine = (each for each, case in zip(ids, found, strict=True) if case.code is decision.code)
        return Left(found=found, violation_id=next(mine, None))

    async def _noted(self, question: Question, decision: Decision) -> None:
        """Note the address, where rules look at addresses."""
        policy = question.policy
        if not policy.needs & Need.NETWORKS:
            return
        noted = sighting(policy.rules, question.facts, admitted=decision.outcome is Outcome.ALLOW)
        if noted is None:
            return
        row = network_row(question.snapshot.member_id, noted, from_ms(question.now_ms))
        await self._networks.seen(policy.tenant, (row,), timeout_s=WRITE_S)
        question.went(noted.network)
        if noted.news:
            await self._tell(question, "network_seen")

    def _put(self, question: Question, decision: Decision, left: Left) -> Challenge:
        step, now = decision.step, from_ms(question.now_ms)
        if step is None or step.finding is None:
            raise ValueError("a challenge is about something that a rule found")
        return Challenge(
            id=self._new_id(),
            member_id=question.snapshot.member_id,
            session_id=question.session.id,
            device_id=question.session.device_id,
            rule_id=step.rule.id,
            rule_version=step.rule.version,
            subject=step.finding.subject,
            violation_id=left.violation_id,
            stage=Stage.CHECK,
            asked=None,
            created_at=now,
            expires_at=now + LASTS,
        )

    async def _end(self, question: Question, decision: Decision) -> None:
        """End the session itself, for what was found of it."""
        tenant, session_id, now = question.policy.tenant, question.session.id, from_ms(question.now_ms)
        reason = decision.code or "ended"
        member_id = await self._sessions.end(tenant, session_id, at=now, reason=reason, by="rule")
        if member_id is not None:
            self._live.forget(tenant, member_id, (session_id,))
        await self._tell(question, "session_ended", session_id)

    async def _tell(self, question: Question, kind: str, *session_ids: str) -> None:
        snapshot = question.snapshot
        change = Change(tenant=snapshot.tenant, kind=kind, member_id=snapshot.member_id, session_ids=session_ids)
        await self._changes.announce(change)


def network_row(member_id: str, noted: Sighting, now: datetime) -> NetworkRow:
    """A use of an address as it is stored."""
    network, place = noted.network, noted.network.place or Place()
    return NetworkRow(
        member_id=member_id,
        session_id=network.session_id or "",
        ip=network.address.text,
        device_id=network.device_id,
        at=now,
        admitted_at=network.admitted_at,
        country=place.country,
        asn=place.asn,
        city=place.city,
        latitude=place.latitude,
        longitude=place.longitude,
    )
