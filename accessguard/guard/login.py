"""Record a login attempt and decide on it: one read, one write, nothing between that could be overtaken.

The write takes the member's row only at the generation that the decision was
made on, so of logins at the same instant one commits and the others decide
again on what it left. See docs/decisions/0002-optimistic-login.md.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.devices.browser import recognise, tidy
from accessguard.devices.cookie import CookieSettings, DeviceTokens, cookie, new_secret
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.changes import Changes
from accessguard.guard.facts import from_ms
from accessguard.guard.model import (
    CookieParts,
    EndedSession,
    Login,
    LoginDevice,
    LoginOutcome,
    LoginVerdict,
    OpenedSession,
)
from accessguard.guard.plan import Plan, Visit, attempt, plan, recognised, token_state
from accessguard.guard.turns import Turns
from accessguard.members.store import MemberStore
from accessguard.metrics import DECISIONS, DEGRADED, LOGIN_RETRIES, LOGIN_SECONDS, VIOLATIONS
from accessguard.policies.book import PolicyBook
from accessguard.policies.model import Policy
from accessguard.rules.model import Action, Decision, Outcome
from accessguard.rules.networks import address
from accessguard.sessions.live import Change, Live
from accessguard.sessions.model import KeyRow, LoginRows, Opening, Replay, Snapshot
from accessguard.sessions.store import SessionStore
from accessguard.sessions.token import SessionTokens
from accessguard.violations.model import QUIET

OPTIMISTIC_TRIES: Final = 4


class Logins:
    """The one place where sessions begin."""

    def __init__(
        self,
        *,
        db: Database,
        live: Live,
        book: PolicyBook,
        changes: Changes,
        device_tokens: DeviceTokens,
        session_tokens: SessionTokens,
        identifier_key: str,
        new_id: Callable[[], UUID],
        seconds: Callable[[], float],
    ) -> None:
        self._db = db
        self._live = live
        self._book = book
        self._changes = changes
        self._device_tokens = device_tokens
        self._session_tokens = session_tokens
        self._key = identifier_key.encode()
        self._new_id = new_id
        self._seconds = seconds
        self._sessions = SessionStore(db, quiet=QUIET)
        self._members = MemberStore(db)
        self._turns = Turns()

    async def login(self, tenant: str, asked: Login, now_ms: int) -> LoginVerdict:
        """Record the attempt, and open a session unless something refuses it.

        Raises GuardError: INVALID for a success of nobody, CONFLICT for a
        session id or an attempt id that stands for something else, NOT_FOUND
        for an unknown tenant, UNAVAILABLE.
        """
        began = self._seconds()
        policy = await self._book.policy(tenant)
        if policy is None:
            raise GuardError(ErrorCode.NOT_FOUND, "There is no such tenant.")
        if asked.attempt_id is not None:
            earlier = await self._sessions.replay(tenant, asked.attempt_id)
            if earlier is not None:
                return self._again(tenant, policy, asked, asked.attempt_id, earlier)
        try:
            verdict = await self._decide(tenant, policy, asked, now_ms)
        except GuardError as error:
            return await self._overtaken(tenant, policy, asked, error)
        LOGIN_SECONDS.observe(self._seconds() - began)
        outcome = "failed" if asked.outcome is LoginOutcome.FAILURE else verdict.outcome
        DECISIONS.labels("login", outcome, (verdict.refusal and verdict.refusal.code) or "none").inc()
        DEGRADED.inc(1 if verdict.degraded else 0)
        return verdict

    async def _overtaken(self, tenant: str, policy: Policy, asked: Login, error: GuardError) -> LoginVerdict:
        """The answer of the same attempt, when a call at the same instant recorded it first; else the error."""
        if error.code is not ErrorCode.CONFLICT or asked.attempt_id is None:
            raise error
        earlier = await self._sessions.replay(tenant, asked.attempt_id)
        if earlier is None:
            raise error
        return self._again(tenant, policy, asked, asked.attempt_id, earlier)

    async def _decide(self, tenant: str, policy: Policy, asked: Login, now_ms: int) -> LoginVerdict:
        salt = new_secret()
        visit = self._visit(asked, now_ms, salt, rules=len(policy.rules))
        if asked.outcome is LoginOutcome.FAILURE:
            return await self._failed(tenant, visit, salt)
        if asked.member_id is None:
            problem = Problem(pointer="/member_id", detail="a successful login is somebody's")
            raise GuardError(ErrorCode.INVALID, "The login was refused.", problem)
        async with self._turns.turn((tenant, asked.member_id)):
            planned, violations, answer = await self._recorded(tenant, policy, asked.member_id, visit, salt)
        await self._tell(tenant, asked.member_id, visit, planned)
        for each in planned.rows.violations:
            VIOLATIONS.labels(each.effect).inc()
        return self._sealed(tenant, policy, msgspec.structs.replace(answer, violations=violations), visit.secret)

    async def _recorded(
        self, tenant: str, policy: Policy, member_id: str, visit: Visit, salt: bytes
    ) -> tuple[Plan, tuple[UUID, ...], LoginVerdict]:
        """Decide and write; again, when the member has changed in between; in the end under its lock."""
        for _ in range(OPTIMISTIC_TRIES):
            done = await self._once(self._sessions, tenant, policy, member_id, visit=visit, salt=salt)
            if done is not None:
                return done
            LOGIN_RETRIES.inc()
        async with self._db.transaction() as transaction:
            store = SessionStore(transaction, quiet=QUIET)
            await store.lock(tenant, member_id)
            done = await self._once(store, tenant, policy, member_id, visit=visit, salt=salt)
        if done is None:
            raise GuardError(ErrorCode.UNAVAILABLE, "The login could not be recorded; try again shortly.")
        return done

    async def _once(
        self, store: SessionStore, tenant: str, policy: Policy, member_id: str, *, visit: Visit, salt: bytes
    ) -> tuple[Plan, tuple[UUID, ...], LoginVerdict] | None:
        opening = await self._opening(store, tenant, member_id, visit)
        planned = plan(opening, policy, visit, live_ms=await self._live_ms(policy, opening.snapshot))
        answer = _answer(planned, visit)
        rows = msgspec.structs.replace(planned.rows, key=self._key_row(visit, salt, answer))
        violations = await store.record(tenant, member_id, opening.snapshot.generation, rows)
        return None if violations is None else (planned, violations, answer)

    async def _opening(self, store: SessionStore, tenant: str, member_id: str, visit: Visit) -> Opening:
        claimed = visit.claim.device_id if visit.claim else None
        opening = await store.opening(tenant, member_id, device_id=claimed, session_id=visit.asked.session_id)
        if opening is None:
            await self._members.ensure(tenant, member_id, at=visit.now)
            opening = await store.opening(tenant, member_id, device_id=claimed, session_id=visit.asked.session_id)
        if opening is None:
            raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.")
        if opening.session_owner not in (None, member_id):
            problem = Problem(pointer="/session_id", detail="this session is another member's")
            raise GuardError(ErrorCode.CONFLICT, "The login was refused.", problem)
        return opening

    async def _live_ms(self, policy: Policy, snapshot: Snapshot) -> Mapping[str, int]:
        """Last activity that PostgreSQL does not have yet; asked for only where the longest idle is to go."""
        if all(rule.action is not Action.EVICT_IDLE for rule in policy.rules):
            return {}
        try:
            pulse = await self._live.pulse(snapshot.tenant, snapshot.member_id, "", now_ms=0, known_ms=0)
        except GuardError:
            return {}
        return pulse.live

    async def _failed(self, tenant: str, visit: Visit, salt: bytes) -> LoginVerdict:
        """An attempt that the platform refused: only recorded."""
        member_id = visit.asked.member_id
        decision = Decision(outcome=Outcome.ALLOW)
        opening = await self._opening(self._sessions, tenant, member_id, visit) if member_id else None
        own = recognised(opening, visit.claim) if opening else None
        row = attempt(
            visit,
            member_id,
            decision,
            device_id=own.id if own else None,
            device_new=False,
            token=token_state(opening.claimed if opening else None, visit),
        )
        answer = LoginVerdict(
            outcome=decision.outcome,
            attempt_id=visit.attempt_id,
            exempt=False,
            degraded=False,
            session=None,
            device=None,
            ended_sessions=(),
            violations=(),
            refusal=None,
        )
        key = self._key_row(visit, salt, answer)
        await self._sessions.record_failure(
            tenant, LoginRows(attempt=row, device=None, session=None, ended=(), violations=(), key=key)
        )
        return answer

    async def _tell(self, tenant: str, member_id: str, visit: Visit, planned: Plan) -> None:
        """After the commit: every worker forgets what it held of the member."""
        ended = [each.id for each in planned.rows.ended]
        touched = (*ended, visit.session_id)
        kind = "session_ended" if ended else "session_started"
        change = Change(tenant=tenant, kind=kind, member_id=member_id, session_ids=touched)
        self._live.forget(tenant, member_id, touched)
        await self._changes.announce(change)

    def _visit(self, asked: Login, now_ms: int, salt: bytes, *, rules: int) -> Visit:
        attempt_id = asked.attempt_id or self._new_id()
        return Visit(
            asked=asked,
            now=from_ms(now_ms),
            attempt_id=attempt_id,
            session_id=asked.session_id or str(self._new_id()),
            device_id=self._new_id(),
            secret=self._secret(salt, attempt_id),
            claim=self._device_tokens.read(asked.device_token),
            browser=recognise(asked.user_agent, asked.client_hints),
            address=address(asked.ip),
            user_agent=tidy(asked.user_agent) if asked.user_agent is not None else None,
            identifier_hash=self._identifier_hash(asked.identifier),
            ids=tuple(self._new_id() for _ in range(rules + 1)),
        )

    def _secret(self, salt: bytes, attempt_id: UUID) -> bytes:
        """The device's next secret: as hard to guess as the salt, and the same for a retry of the same attempt."""
        return hmac.digest(self._key, b"device" + salt + attempt_id.bytes, "sha256")

    def _identifier_hash(self, identifier: str | None) -> str | None:
        if identifier is None:
            return None
        return "\\x" + hmac.digest(self._key, b"identifier" + identifier.strip().lower().encode(), "sha256").hex()

    def _key_row(self, visit: Visit, salt: bytes, answer: LoginVerdict) -> KeyRow | None:
        if visit.asked.attempt_id is None:
            return None
        return KeyRow(
            attempt_id=visit.attempt_id,
            fingerprint="\\x" + fingerprint(visit.asked).hex(),
            salt="\\x" + salt.hex(),
            answer=answer,
            at=visit.now,
        )

    def _again(self, tenant: str, policy: Policy, asked: Login, attempt_id: UUID, earlier: Replay) -> LoginVerdict:
        """The answer that was given before; its secrets are derived again, they were never stored."""
        if not hmac.compare_digest(earlier.fingerprint, fingerprint(asked)):
            problem = Problem(pointer="/attempt_id", detail="this attempt was recorded with another content")
            raise GuardError(ErrorCode.CONFLICT, "The login was refused.", problem)
        answer = msgspec.json.decode(earlier.answer, type=LoginVerdict)
        return self._sealed(tenant, policy, answer, self._secret(earlier.salt, attempt_id))

    def _sealed(self, tenant: str, policy: Policy, answer: LoginVerdict, secret: bytes) -> LoginVerdict:
        """The answer with its tokens."""
        session, device = answer.session, answer.device
        if session is not None:
            session = msgspec.structs.replace(session, token=self._session_tokens.issue(tenant, session.id))
        if device is not None:
            token = self._device_tokens.issue(device.id, secret)
            device = msgspec.structs.replace(device, token=token, cookie=_cookie(token, policy))
        return msgspec.structs.replace(answer, session=session, device=device)


def fingerprint(asked: Login) -> bytes:
    """What a retry must have in common with the attempt it repeats."""
    same: tuple[Any, ...] = (asked.member_id, asked.identifier, asked.outcome, asked.method, asked.session_id)
    return hashlib.sha256(msgspec.json.encode(same)).digest()


def _answer(planned: Plan, visit: Visit) -> LoginVerdict:
    """The answer without its secrets, which are put in last and never stored."""
    row = planned.rows.session
    return LoginVerdict(
        outcome=planned.decision.outcome,
        attempt_id=visit.attempt_id,
        exempt=planned.decision.exempt,
        degraded=planned.decision.degraded,
        session=None if row is None else OpenedSession(id=row.id, token="", expires_at=row.expires_at),
        device=None if planned.device_id is None else _unsealed(planned.device_id, new=planned.device_new),
        ended_sessions=tuple(EndedSession(id=each.id, reason=each.reason) for each in planned.rows.ended),
        violations=(),
        refusal=planned.refusal,
    )


def _unsealed(device_id: UUID, *, new: bool) -> LoginDevice:
    blank = CookieParts(name="", value="", max_age_s=0, header="")
    return LoginDevice(id=device_id, new=new, token="", cookie=blank)


def _cookie(token: str, policy: Policy) -> CookieParts:
    choice = policy.settings.cookie
    settings = CookieSettings(prefix=choice.prefix, domain=choice.domain, same_site=choice.same_site)
    made = cookie(token, settings)
    return CookieParts(name=made.name, value=made.value, max_age_s=made.max_age_s, header=made.header)
