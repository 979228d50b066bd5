"""A challenge settled: what was withheld goes through, or is refused. Once only; whoever asks again is told the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from accessguard.challenges.model import Answer, Challenge, Freed, Settlement
from accessguard.challenges.store import ChallengeStore
from accessguard.database import Database
from accessguard.devices.cookie import Claim, new_secret
from accessguard.devices.merging import MergeStore
from accessguard.devices.store import DeviceStore
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.acts import Act
from accessguard.guard.checked import Checked, allowed, of_session, refused, still
from accessguard.guard.facts import from_ms
from accessguard.guard.kin import may_be
from accessguard.guard.login import Asked, Logins
from accessguard.guard.merging import merged, pair_of
from accessguard.guard.model import Actor, Choice, EndedSession, LoginVerdict
from accessguard.guard.pending import LASTS, Pending, good_until
from accessguard.guard.plan import Plan
from accessguard.guard.tokens import TokenState
from accessguard.guard.verdicts import verdict_of
from accessguard.guard.visit import attempt
from accessguard.policies.book import PolicyBook
from accessguard.policies.model import Policy
from accessguard.rules.model import Decision, Finding, Outcome, Rule, Stage
from accessguard.sessions.logins import LoginStore
from accessguard.sessions.model import KeyRow, Knock, LoginRows
from accessguard.sessions.store import SessionStore
from accessguard.violations.model import Found

QUERY_S: Final = 1.0
SAID_BY_MEMBER: Final = "said by the member, in a challenge"
FREED: Final = "freed_by_member"
"""Why a session ended that the member closed to get in."""
STUDENT: Final = Actor(subject="student", role="student")
"""Who acts on the page that explains a refusal."""


class Settle(msgspec.Struct, frozen=True, kw_only=True):
    """How a challenge went, and what the member closed to free a place, if he did."""

    outcome: Answer
    freed: Freed | None = None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A challenge as its student sees it now: what could be closed (nothing, once it is over), and how often in all.

    `freed` is what was closed for it. `stage`: a login begins anew after that, a session goes on.
    """

    stage: Stage
    choices: tuple[Choice, ...] = ()
    swaps_left: int = 0
    freed: Freed | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a challenge, by whom, when, and ids for the challenge after it and for a line of the audit log."""

    policy: Policy
    actor: Actor
    said: Settle
    now: datetime
    next_id: UUID
    entry_id: UUID


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """An answer before its secrets, the salt of these, and what every worker is told; `found` are the cases it made."""

    answer: LoginVerdict
    salt: bytes
    ended: tuple[str, ...] = ()
    found: tuple[Found, ...] = ()
    changed: bool = True


class Challenges:
    """Settles challenges of logins and of checks."""

    def __init__(self, *, db: Database, book: PolicyBook, logins: Logins, new_id: Callable[[], UUID]) -> None:
        self._db = db
        self._book = book
        self._logins = logins
        self._new_id = new_id

    async def settle(self, tenant: str, actor: Actor, challenge_id: UUID, said: Settle, now_ms: int) -> LoginVerdict:
        """Settle a challenge under its member's lock, and answer as a login is answered.

        Raises GuardError: NOT_FOUND for a challenge that is not the tenant's,
        CONFLICT for one that is over, was settled the other way, or whose
        member may not free that place, UNAVAILABLE.
        """
        policy = await self._book.policy(tenant)
        challenge = await ChallengeStore(self._db).one(tenant, challenge_id)
        if policy is None or challenge is None:
            raise _missing()
        call = self._call(policy, actor, said, now_ms)
        async with self._db.transaction() as tx:
            await LoginStore(tx, quiet=self._logins.quiet).lock(tenant, challenge.member_id)
            done = await Settling(tx, self._logins, call).done(challenge.id)
        if done.changed:
            self._logins.count(done.answer, done.found)
            await self._logins.tell(tenant, challenge.member_id, done.ended, challenge.session_id)
        secret = self._logins.seal.secret(done.salt, challenge_id)
        return self._logins.seal.answered(tenant, policy, done.answer, secret)

    async def standing(self, tenant: str, member_id: str, challenge_id: UUID, now_ms: int) -> Standing | None:
        """How a challenge of this member stands; None when there is none. Raises GuardError(UNAVAILABLE)."""
        policy = await self._book.policy(tenant)
        challenge = await ChallengeStore(self._db).one(tenant, challenge_id)
        if policy is None or challenge is None or challenge.member_id != member_id:
            return None
        if not challenge.open(from_ms(now_ms)):
            return Standing(stage=challenge.stage, freed=challenge.freed)
        call = self._call(policy, STUDENT, Settle(outcome=Answer.PASSED), now_ms)
        return await Settling(self._db, self._logins, call).standing(challenge)

    async def free(self, tenant: str, member_id: str, challenge_id: UUID, freed: Freed, now_ms: int) -> None:
        """Close what the student chose on the page: a session that was challenged goes on, a login is to be made anew.

        The browser that would get the secrets of a finished login is not the
        one that asks here. Raises GuardError: NOT_FOUND for a challenge that is
        not this member's, CONFLICT as `settle` does, UNAVAILABLE.
        """
        policy = await self._book.policy(tenant)
        challenge = await ChallengeStore(self._db).one(tenant, challenge_id)
        if policy is None or challenge is None or challenge.member_id != member_id:
            raise _missing()
        said = Settle(outcome=Answer.PASSED, freed=freed)
        if challenge.stage is Stage.CHECK:
            await self.settle(tenant, STUDENT, challenge_id, said, now_ms)
            return
        async with self._db.transaction() as tx:
            await LoginStore(tx, quiet=self._logins.quiet).lock(tenant, member_id)
            ended = await Settling(tx, self._logins, self._call(policy, STUDENT, said, now_ms)).freed(challenge_id)
        await self._logins.tell(tenant, member_id, ended, None)

    def _call(self, policy: Policy, actor: Actor, said: Settle, now_ms: int) -> Call:
        return Call(
            policy=policy, actor=actor, said=said, now=from_ms(now_ms), next_id=self._new_id(), entry_id=self._new_id()
        )


class Settling:
    """One settlement, within the transaction that holds its member."""

    def __init__(self, tx: Database, logins: Logins, call: Call) -> None:
        self._tx = tx
        self._logins = logins
        self._call = call
        self._policy, self._said, self._now = call.policy, call.said, call.now
        self._store = LoginStore(tx, quiet=logins.quiet)
        self._challenges = ChallengeStore(tx)
        self._ended: tuple[str, ...] = ()

    async def done(self, challenge_id: UUID) -> Answered:
        """Settle it as it stands now, that nobody else can."""
        challenge = await self._challenges.one(self._policy.tenant, challenge_id)
        if challenge is None:
            raise _missing()
        if challenge.outcome is not None:
            return await self._again(challenge)
        if not challenge.open(self._now):
            raise _conflict("The challenge is over.")
        return await (self._login(challenge) if challenge.stage is Stage.LOGIN else self._check(challenge))

    async def standing(self, challenge: Challenge) -> Standing:
        """What the student could close for an open challenge now."""
        decision, found = await self._open(challenge)
        among = decision.step is not None and decision.step.rule.id == challenge.rule_id
        if decision.outcome is not Outcome.CHALLENGE or not among:
            return Standing(stage=challenge.stage)
        return Standing(stage=challenge.stage, choices=found, swaps_left=decision.swaps_left)

    async def _open(self, challenge: Challenge) -> tuple[Decision, tuple[Choice, ...]]:
        """What is found now, and what takes up the places."""
        if challenge.stage is Stage.LOGIN:
            planned = await self._planned(await self._waiting(challenge))
            return planned.decision, planned.refusal.choices if planned.refusal else ()
        checked = await self._checked(challenge)
        if checked is None or checked.closed is not None:
            return Decision(outcome=Outcome.DENY), ()
        verdict = verdict_of(checked.decision, checked.snapshot, self._policy, checked.session)
        return checked.decision, verdict.choices

    async def freed(self, challenge_id: UUID) -> tuple[str, ...]:
        """Free a place for a login that is to be made anew; the sessions that ended by it."""
        challenge = await self._challenges.one(self._policy.tenant, challenge_id)
        if challenge is None or not challenge.open(self._now):
            raise _conflict("The challenge is over.")
        await self._free(challenge, (await self._planned(await self._waiting(challenge))).decision)
        await self._settle(challenge, self._now)
        return self._ended

    async def _waiting(self, challenge: Challenge) -> Asked:
        """The login that was challenged, as it stands."""
        pending = msgspec.json.decode(challenge.asked or b"", type=Pending)
        return self._asked(challenge, await self._current(challenge, pending))

    async def _again(self, challenge: Challenge) -> Answered:
        """What was answered before."""
        knock = Knock(
            tenant=self._policy.tenant, member_id=None, device_id=None, session_id=None, attempt_id=challenge.id
        )
        replay = (await self._store.read(knock)).replay
        if challenge.outcome is not self._said.outcome or replay is None:
            raise _conflict("The challenge was settled before.")
        answer = msgspec.json.decode(replay.answer, type=LoginVerdict)
        return Answered(answer=answer, salt=replay.salt, changed=False)

    async def _login(self, challenge: Challenge) -> Answered:
        """The login goes through as if it came now, or is refused for the reason that was given."""
        pending = msgspec.json.decode(challenge.asked or b"", type=Pending)
        pending = await self._current(challenge, pending)
        asked = self._asked(challenge, pending)
        if self._said.freed is not None:
            await self._free(challenge, (await self._planned(asked)).decision)
            pending = await self._current(challenge, pending)
            asked = self._asked(challenge, pending)
        ends = self._now + timedelta(seconds=self._policy.settings.session.absolute_ttl_s)
        await self._settle(challenge, ends)
        passed = self._said.outcome is Answer.PASSED
        planned = await self._planned(asked) if passed else _denied(self._policy.tenant, asked, pending)
        done = await self._logins.write(self._store, asked, planned, before=self._freed)
        if done is None:
            raise GuardError(ErrorCode.UNAVAILABLE, "The login could not be recorded; try again shortly.")
        ended = (*self._ended, *(each.id for each in planned.rows.ended))
        return Answered(answer=done.answer, salt=pending.salt, ended=ended, found=planned.rows.violations)

    async def _current(self, challenge: Challenge, pending: Pending) -> Pending:
        """The same login, from the device that its own was merged into, if it was."""
        known = await MergeStore(self._tx).survivor(self._policy.tenant, challenge.member_id, pending.device_id)
        if known == pending.device_id:
            return pending
        return msgspec.structs.replace(pending, device_id=known, device_new=False)

    def _asked(self, challenge: Challenge, pending: Pending) -> Asked:
        """The login again: under the challenge's id, at this time, from the device that it came from."""
        login = msgspec.structs.replace(pending.login, attempt_id=challenge.id, session_id=pending.session_id)
        asked = self._logins.asked(self._policy, login, self._now, salt=pending.salt)
        visit = msgspec.structs.replace(
            asked.visit,
            claim=Claim(device_id=pending.device_id, secret=b""),
            vouched=True,
            device_new=pending.device_new,
            identifier_hash=pending.identifier_hash,
        )
        return msgspec.structs.replace(asked, visit=visit)

    async def _planned(self, asked: Asked) -> Plan:
        return await self._logins.decide(asked, await self._logins.reading(self._store, asked))

    async def _check(self, challenge: Challenge) -> Answered:
        """The session goes on, unless it is over, or what was freed is not enough."""
        checked = await self._checked(challenge)
        if self._said.freed is not None:
            if checked is None or checked.closed is not None:
                raise _conflict("The session may not go on; there is no place to free for it.")
            await self._free(challenge, checked.decision)
        await self._settle(challenge, checked.session.expires_at if checked else self._now)
        after = await self._checked(challenge)
        verdict = await self._after(challenge, after)
        salt = new_secret()
        await self._store.remember(self._policy.tenant, _key(challenge, salt, verdict, self._now))
        return Answered(answer=verdict, salt=salt, ended=self._ended)

    async def _checked(self, challenge: Challenge) -> Checked | None:
        """The session that was challenged, as it stands; None when it is gone."""
        session_id = challenge.session_id or ""
        snapshot = await SessionStore(self._tx).snapshot(
            self._policy.tenant, session_id, timeout_s=QUERY_S, needs=self._policy.needs
        )
        return of_session(snapshot, self._policy, challenge, self._now)

    async def _after(self, challenge: Challenge, checked: Checked | None) -> LoginVerdict:
        if checked is None or checked.closed is not None:
            return refused(self._policy, challenge, checked, self._freed)
        if self._said.outcome is Answer.FAILED:
            return refused(self._policy, challenge, checked, self._freed)
        if self._said.freed is None or checked.decision.outcome is Outcome.ALLOW:
            return allowed(challenge, checked, self._freed)
        fresh = msgspec.structs.replace(
            challenge, id=self._call.next_id, created_at=self._now, expires_at=self._now + LASTS
        )
        put = await self._challenges.make(self._policy.tenant, fresh)
        return still(self._policy, challenge, checked, self._freed, put.id)

    async def _settle(self, challenge: Challenge, ends: datetime) -> None:
        """Write down how it went. A place that was freed lets in by itself, so nothing is lifted besides."""
        said = self._said
        lifted = said.outcome is Answer.PASSED and said.freed is None
        until = good_until(_rule(self._policy, challenge), self._now, ends) if lifted else None
        settlement = Settlement(
            outcome=said.outcome, at=self._now, by=self._call.actor.subject, freed=said.freed, good_until=until
        )
        if not await self._challenges.settle(self._policy.tenant, challenge.id, settlement):
            raise _conflict("The challenge is over.")

    async def _free(self, challenge: Challenge, decision: Decision) -> None:
        """Close what the member chose, if it holds the place and his budget allows it. Raises GuardError(CONFLICT)."""
        freed, step = self._said.freed, decision.step
        if freed is None or decision.outcome is not Outcome.CHALLENGE or step is None or step.finding is None:
            raise _conflict("There is no place to free any more.")
        if step.rule.id != challenge.rule_id or decision.swaps_left < 1:
            raise _conflict("The member may not free a place himself now.")
        if not _among(freed, step.finding):
            raise _conflict("This is not among the choices.", _pointer(freed))
        tenant, member_id, by = self._policy.tenant, challenge.member_id, self._call.actor.subject
        if freed.session_id is not None:
            await SessionStore(self._tx).end(tenant, freed.session_id, at=self._now, reason=FREED, by=by)
            self._ended = (freed.session_id,)
        elif freed.device_id is not None:
            ended = await DeviceStore(self._tx).forget(tenant, member_id, freed.device_id, at=self._now, by=by)
            self._ended = ended or ()
        elif freed.merged_id is not None:
            await self._merge(challenge, freed.merged_id)

    async def _merge(self, challenge: Challenge, old_id: UUID) -> None:
        """Make the device that asks part of the one that the member says it is. Raises GuardError(CONFLICT) when it cannot be."""
        tenant, member_id = self._policy.tenant, challenge.member_id
        sighted = {each.id: each for each in await DeviceStore(self._tx).sighted(tenant, member_id)}
        me, old = sighted.get(challenge.device_id or old_id), sighted.get(old_id)
        if me is None or old is None or not may_be(me, old):
            problem = Problem(pointer="/merge_device_id", detail="does not agree with the device that asks")
            raise _conflict("The two cannot be one device.", problem)
        pair = await pair_of(MergeStore(self._tx), tenant, member_id, me.id, old.id)
        if pair is None:
            return
        act = Act(
            tenant=tenant,
            actor=self._call.actor,
            action="device.merge",
            target=str(me.id),
            reason=SAID_BY_MEMBER,
            at=self._now,
            member_id=member_id,
        )
        await merged(self._tx, act, member_id, *pair, rules=self._policy.rules, entry_id=self._call.entry_id)

    @property
    def _freed(self) -> tuple[EndedSession, ...]:
        reason = FREED if self._said.freed and self._said.freed.session_id else "device_forgotten"
        return tuple(EndedSession(id=each, reason=reason) for each in self._ended)


def _denied(tenant: str, asked: Asked, pending: Pending) -> Plan:
    """The login that was challenged, refused for the reason that was given then."""
    refusal = msgspec.structs.replace(pending.refusal, outcome=Outcome.DENY, challenge_id=None)
    decision = Decision(outcome=Outcome.DENY, code=refusal.code, degraded=refusal.degraded)
    line = attempt(
        asked.visit,
        asked.visit.asked.member_id,
        decision,
        device_id=pending.device_id,
        device_new=False,
        token=TokenState.NONE,
    )
    rows = LoginRows(
        tenant=tenant,
        member_id=asked.visit.asked.member_id,
        generation=None,
        at=asked.visit.now,
        counted=False,
        attempt=msgspec.structs.replace(line, rule_id=refusal.rule_id, rule_version=refusal.rule_version),
        device=None,
        session=None,
        ended=(),
        violations=(),
        key=None,
    )
    return Plan(decision=decision, rows=rows, device_id=None, device_new=False, refusal=refusal)


def _rule(policy: Policy, challenge: Challenge) -> Rule | None:
    return next((rule for rule in policy.rules if rule.id == challenge.rule_id), None)


def _among(freed: Freed, finding: Finding) -> bool:
    devices = {freed.device_id, freed.merged_id} - {None}
    return freed.session_id in finding.sessions or not devices.isdisjoint(finding.devices)


def _pointer(freed: Freed) -> Problem:
    name = "end_session_id" if freed.session_id is not None else "forget_device_id"
    name = name if freed.merged_id is None else "merge_device_id"
    return Problem(pointer=f"/{name}", detail="is not among the choices")


def _key(challenge: Challenge, salt: bytes, answer: LoginVerdict, at: datetime) -> KeyRow:
    return KeyRow(attempt_id=challenge.id, fingerprint="\\x", salt="\\x" + salt.hex(), answer=answer, at=at)


def _missing() -> GuardError:
    return GuardError(ErrorCode.NOT_FOUND, "There is no such challenge.")


def _conflict(message: str, *problems: Problem) -> GuardError:
    return GuardError(ErrorCode.CONFLICT, message, *problems)
