"""Record a login attempt and decide on it: one read, one write, nothing between that could be overtaken.

The write takes the member's row only at the generation that the decision was
made on, so of logins at the same instant one commits and the others decide
again on what it left. Logins of different members share both statements.
See docs/decisions/0002-optimistic-login.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.devices.browser import Browser, tidy
from accessguard.devices.cookie import DeviceTokens, matches, new_secret
from accessguard.devices.recogniser import Recogniser
from accessguard.devices.store import DeviceStore
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.geo import Geo
from accessguard.guard.changes import SPOOLED, Changes
from accessguard.guard.crowds import AT_ONCE, Crowd, Crowds
from accessguard.guard.facts import from_ms
from accessguard.guard.failed import failure, failures_reach
from accessguard.guard.gathering import Together
from accessguard.guard.kin import may_offer, offering
from accessguard.guard.model import EndedSession, Login, LoginOutcome, LoginVerdict, Method
from accessguard.guard.pending import challenge_of
from accessguard.guard.plan import Plan, plan
from accessguard.guard.provisional import beside as beside_waiting
from accessguard.guard.room import Room
from accessguard.guard.seal import Seal, key_row, seed, unsealed
from accessguard.guard.spooling import Spooling
from accessguard.guard.tokens import GRACE
from accessguard.guard.turns import BusyError, Turns
from accessguard.guard.visit import Visit, beside
from accessguard.members.store import MemberStore
from accessguard.metrics import DECISIONS, DEGRADED, LOGIN_RETRIES, LOGIN_SECONDS, VIOLATIONS
from accessguard.policies.book import PolicyBook
from accessguard.policies.hosts import serves
from accessguard.policies.model import Policy
from accessguard.rules.model import Action
from accessguard.rules.needs import STORED
from accessguard.rules.networks import address
from accessguard.sessions.live import Change, Live
from accessguard.sessions.logins import LoginStore
from accessguard.sessions.model import Knock, LoginRows, Opening, Reading, Replay, Snapshot
from accessguard.sessions.networks import bounds
from accessguard.sessions.token import SessionTokens
from accessguard.violations.model import QUIET, Found

TRIES_ALONE: Final = 3
"""Conflicts of a login that goes alone, before it takes its member's lock."""


class Desk(Protocol):
    """Where a login is read and written: with others (`Together`), alone or within a transaction (`LoginStore`)."""

    async def read(self, knock: Knock) -> Reading:
        """What the login is decided on."""

    async def record(self, login: LoginRows) -> tuple[UUID, ...] | None:
        """Write it: its violations, or None when its member is not as it was read."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One login on its way, with all that does not change when it is decided again.

    `reach` is how far back failed logins are looked at; None when no rule counts them.
    `crowd` are the first logins of the same browser that are under way.
    """

    tenant: str
    policy: Policy
    visit: Visit
    salt: bytes
    reach: timedelta | None
    crowd: Crowd | None = None


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A login that is written, with the answer before its secrets, and that of its device.

    `known` is how many devices its member had before.
    """

    planned: Plan
    answer: LoginVerdict
    secret: bytes
    known: int = 0


class UnwrittenError(GuardError):
    """PostgreSQL fell silent while a login was written: what was asked and decided, on what, whether or not it is there."""

    def __init__(self, asked: Asked, planned: Plan, opening: Opening | None) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, "The database is out of reach; try again shortly.")
        self.asked = asked
        self.planned = planned
        self.snapshot = opening.snapshot if opening else None


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
        geo: Geo,
        recogniser: Recogniser,
        identifier_key: str,
        new_id: Callable[[], UUID],
        seconds: Callable[[], float],
        spooling: Spooling,
        room: Room,
    ) -> None:
        self._db = db
        self._devices = DeviceStore(db)
        self._live = live
        self._book = book
        self._changes = changes
        self._device_tokens = device_tokens
        self._geo = geo
        self._recogniser = recogniser
        self.seal = Seal(identifier_key.encode(), device_tokens=device_tokens, session_tokens=session_tokens)
        self._new_id = new_id
        self._seconds = seconds
        self._spooling = spooling
        self._room = room
        self.quiet = QUIET
        self._alone = LoginStore(db, quiet=self.quiet)
        self._together = Together(self._alone)
        self._members = MemberStore(db)
        self._turns = Turns()
        self._crowds = Crowds()

    async def login(self, tenant: str, said: Login, now_ms: int) -> LoginVerdict:
        """Record the attempt, and open a session unless something refuses it.

        Raises GuardError: INVALID for a success of nobody, CONFLICT for a
        session id or an attempt id that stands for something else, NOT_FOUND
        for an unknown tenant, UNAVAILABLE.
        """
        began = self._seconds()
        policy = await self._book.best(tenant)
        if policy is None:
            raise GuardError(ErrorCode.NOT_FOUND, "There is no such tenant.")
        if said.member_id is None and said.outcome is LoginOutcome.SUCCESS:
            problem = Problem(pointer="/member_id", detail="a successful login is somebody's")
            raise GuardError(ErrorCode.INVALID, "The login was refused.", problem)
        if not serves(policy.settings.hosts, said.host):
            problem = Problem(pointer="/host", detail="is none of this school's hosts, or not in use")
            raise GuardError(ErrorCode.INVALID, "The login was refused.", problem)
        asked = self.asked(policy, said, from_ms(now_ms), browser=await self._browser(said))
        try:
            waits = await self._spooling.waits(tenant, said.member_id, asked.visit.attempt_id)
            with self._crowds.joined(browser_of(asked)) as crowd:
                asked = msgspec.structs.replace(asked, crowd=crowd)
                done = await (self._kept(asked) if waits else self._done_or_kept(asked))
        except GuardError as error:
            return self._again(asked, await self._overtaken(asked, error))
        if isinstance(done, Replay):
            return self._again(asked, done)
        LOGIN_SECONDS.observe(self._seconds() - began)
        self.count(done.answer, done.planned.rows.violations, failed=said.outcome is LoginOutcome.FAILURE)
        return self.seal.answered(tenant, policy, done.answer, done.secret)

    async def _done_or_kept(self, asked: Asked) -> Done | Replay:
        """Written; or kept, when PostgreSQL is out."""
        try:
            return await self._done(asked)
        except GuardError as error:
            if isinstance(error, BusyError) or error.code is not ErrorCode.UNAVAILABLE:
                raise  # of the first, PostgreSQL is there: what the others left has to be counted
            return await self._kept(asked, error)

    async def _kept(self, asked: Asked, error: GuardError | None = None) -> Done | Replay:
        """Kept for PostgreSQL, which is out, in Valkey. Raises GuardError(UNAVAILABLE) when that is out as well."""
        unwritten = error if isinstance(error, UnwrittenError) else None
        visit = (unwritten.asked if unwritten else asked).visit
        taken = await self._spooling.take(
            asked.policy,
            visit,
            asked.salt,
            unwritten.planned if unwritten else None,
            unwritten.snapshot if unwritten else None,
            met=lambda visit, known: self._met_waiting(msgspec.structs.replace(asked, visit=visit), known),
        )
        if isinstance(taken, Replay):
            return taken
        planned, answer, visit = taken
        _made(asked, planned)
        if visit.asked.member_id is not None:
            touched = (*(each.id for each in planned.rows.ended), visit.session_id)
            self._live.forget(asked.tenant, visit.asked.member_id, touched)
            change = Change(tenant=asked.tenant, kind=SPOOLED, member_id=visit.asked.member_id, session_ids=touched)
            await self._changes.announce(change)
        return Done(planned=planned, answer=answer, secret=visit.secret)

    async def _done(self, asked: Asked) -> Done | Replay:
        """Written and told; or the same attempt as it was recorded before."""
        said = asked.visit.asked
        if said.outcome is LoginOutcome.FAILURE:
            return await self._failed(asked)
        async with self._turns.turn((asked.tenant, said.member_id)):
            done = await self._recorded(asked)
        if isinstance(done, Done):
            if done.planned.device_new and done.known >= self._room.most:
                await self._room.after_login(asked.tenant, said.member_id or "", done.planned.device_id)
            ended = tuple(each.id for each in done.planned.rows.ended)
            await self.tell(asked.tenant, said.member_id or "", ended, asked.visit.session_id)
        return done

    async def _recorded(self, asked: Asked) -> Done | Replay:
        """Decide and write with others; alone, when the member has changed in between; in the end under its lock."""
        for desk in (self._together, *(self._alone,) * TRIES_ALONE):
            done = await self._once(desk, asked)
            if done is not None:
                return done
            LOGIN_RETRIES.inc()
        async with self._db.transaction() as transaction:
            store = LoginStore(transaction, quiet=self.quiet)
            await store.lock(asked.tenant, asked.visit.asked.member_id or "")
            done = await self._once(store, asked)
        if done is None:
            raise GuardError(ErrorCode.UNAVAILABLE, "The login could not be recorded; try again shortly.")
        return done

    async def _once(self, desk: Desk, asked: Asked) -> Done | Replay | None:
        reading = await self.reading(desk, asked)
        if reading.replay is not None:
            return reading.replay
        asked = self.met(asked, reading.opening)
        planned = await self.decide(asked, reading)
        try:
            done = await self.write(desk, asked, planned)
        except GuardError as error:
            if error.code is not ErrorCode.UNAVAILABLE:
                raise
            raise UnwrittenError(asked, planned, reading.opening) from error
        if done is None:
            return None
        _made(asked, done.planned)
        return msgspec.structs.replace(done, known=len(reading.opening.snapshot.devices) if reading.opening else 0)

    def _met_waiting(self, asked: Asked, known: Snapshot) -> Visit:
        """The login as `met` says, where others of its browser that came at once wait for PostgreSQL."""
        visit, crowd, claimed = asked.visit, asked.crowd, beside_waiting(known, asked.visit)
        if crowd is None or claimed is None or visit.twin:
            return visit
        if crowd.device_id != claimed.id and abs(visit.now - claimed.rotated_at) > AT_ONCE:
            return visit
        return self.met(asked, Opening(snapshot=known, claimed=claimed)).visit

    def met(self, asked: Asked, opening: Opening | None) -> Asked:
        """The same login, with the token that its device has just been given where others of its browser came at once."""
        claimed, visit = opening.claimed if opening else None, asked.visit
        if opening is None or claimed is None:
            return asked
        fresh = abs(visit.now - claimed.rotated_at) <= GRACE
        if fresh and visit.claim is None and self._crowds.same(asked.crowd, claimed.id):
            visit = msgspec.structs.replace(visit, twin=True)
        if claimed.seed is not None and beside(opening, visit):
            secret = self.seal.secret(claimed.seed, visit.attempt_id)
            if matches(secret, claimed.survivor_hash or claimed.secret_hash):
                visit = msgspec.structs.replace(visit, secret=secret, seed=claimed.seed)
        return msgspec.structs.replace(asked, visit=visit)

    async def decide(self, asked: Asked, reading: Reading) -> Plan:
        """What the login comes to on what was read."""
        opening, policy, visit, failures = reading.opening, asked.policy, asked.visit, reading.failures
        if opening is None or visit.asked.outcome is LoginOutcome.FAILURE:
            return failure(asked.tenant, opening, policy, visit, failures=failures)
        live_ms = await self._live_ms(policy, opening.snapshot)
        planned = plan(opening, policy, visit, live_ms=live_ms, failures=failures)
        if not may_offer(planned):
            return planned
        return offering(planned, visit, await self._devices.sighted(asked.tenant, opening.snapshot.member_id))

    async def _failed(self, asked: Asked) -> Done | Replay:
        """An attempt that the platform refused; one that rules count takes its turn, one that a rule refuses waits for nobody."""
        reading = Reading(opening=None, replay=None)
        if (
            asked.visit.asked.member_id is not None
            or asked.visit.asked.attempt_id is not None
            or asked.reach is not None
        ):
            reading = await self.reading(self._together, asked)
        if reading.replay is not None:
            return reading.replay
        planned = await self.decide(asked, reading)
        if planned.rows.generation is not None:
            async with self._turns.turn((asked.tenant, asked.visit.asked.member_id)):
                return await self._recorded(asked)
        done = await self.write(self._together, asked, planned)
        if done is None:
            raise GuardError(ErrorCode.UNAVAILABLE, "The login could not be recorded; try again shortly.")
        return done

    async def reading(self, desk: Desk, asked: Asked) -> Reading:
        """What is known of the member, which is made if it is not there; no opening when nobody is named."""
        member_id, knock = asked.visit.asked.member_id, knock_of(asked)
        reading = await desk.read(knock)
        if reading.replay is None and reading.opening is None and member_id is not None:
            await self._members.ensure(asked.tenant, member_id, at=asked.visit.now)
            reading = await desk.read(knock)
        if reading.replay is None and member_id is not None:
            _check(reading.opening, member_id)
        return reading

    async def _overtaken(self, asked: Asked, error: GuardError) -> Replay:
        """The same attempt, when a call at the same instant recorded it first; else the error."""
        if error.code is not ErrorCode.CONFLICT or asked.visit.asked.attempt_id is None:
            raise error
        reading = await self._together.read(knock_of(asked))
        if reading.replay is None:
            raise error
        return reading.replay

    def _again(self, asked: Asked, earlier: Replay) -> LoginVerdict:
        return self.seal.again(asked.tenant, asked.policy, asked.visit.asked, asked.visit.attempt_id, earlier)

    async def write(
        self, desk: Desk, asked: Asked, planned: Plan, *, before: Sequence[EndedSession] = ()
    ) -> Done | None:
        """The login as it was decided, written; None when its member is not as it was read.

        `before` are sessions that were ended for it already.
        """
        answer = unsealed(planned, asked.visit, before)
        key, challenge = key_row(asked.visit, asked.visit.seed, answer), challenge_of(planned, asked.visit, asked.salt)
        rows = planned.rows
        if key is not None or challenge is not None:
            rows = msgspec.structs.replace(rows, key=key, challenge=challenge)
        violations = await desk.record(rows)
        if violations is None:
            return None
        answer = msgspec.structs.replace(answer, violations=violations)
        return Done(planned=planned, answer=answer, secret=asked.visit.secret)

    async def _live_ms(self, policy: Policy, snapshot: Snapshot) -> Mapping[str, int]:
        """Last activity that PostgreSQL does not have yet; asked for only where the longest idle is to go."""
        if all(rule.action is not Action.EVICT_IDLE for rule in policy.rules):
            return {}
        try:
            pulse = await self._live.pulse(snapshot.tenant, snapshot.member_id, "", now_ms=0, known_ms=0)
        except GuardError:
            return {}
        return pulse.live

    async def tell(self, tenant: str, member_id: str, ended: Sequence[str], session_id: str | None) -> None:
        """After the commit: every worker forgets what it held of the member, and of the session that began, if one did."""
        touched = (*ended, session_id) if session_id is not None else tuple(ended)
        kind = "session_ended" if ended else "session_started"
        self._live.forget(tenant, member_id, touched)
        await self._changes.announce(Change(tenant=tenant, kind=kind, member_id=member_id, session_ids=touched))

    def count(self, answer: LoginVerdict, found: Sequence[Found], *, failed: bool = False) -> None:
        """Count one answer and the cases that it made; `failed`: the platform itself refused."""
        refusal = answer.refusal
        outcome = "failed" if failed and refusal is None else answer.outcome
        DECISIONS.labels("login", outcome, (refusal and refusal.code) or "none").inc()
        DEGRADED.inc(1 if answer.degraded else 0)
        for each in found:
            VIOLATIONS.labels(each.effect, each.code, each.mode).inc()

    async def _browser(self, said: Login) -> Browser:
        """What the login came from; only who got in makes anybody look twice, so that guessing costs nothing."""
        if said.outcome is LoginOutcome.FAILURE:
            return self._recogniser.at_once(said.user_agent, said.client_hints)
        return await self._recogniser.recognise(said.user_agent, said.client_hints)

    def asked(
        self,
        policy: Policy,
        said: Login,
        now: datetime,
        *,
        browser: Browser | None = None,
        salt: bytes | None = None,
    ) -> Asked:
        """A login with all that it brings; its secrets are derived from `salt`, else from a new one.

        `browser` is what it came from, as far as it is known now when None.
        """
        salt, attempt_id = salt or new_secret(), said.attempt_id or self._new_id()
        found = address(said.ip)
        visit = Visit(
            asked=said,
            now=now,
            attempt_id=attempt_id,
            session_id=said.session_id or str(self._new_id()),
            device_id=self._new_id(),
            secret=self.seal.secret(salt, attempt_id),
            seed=seed(salt, attempt_id),
            claim=self._device_tokens.read(said.device_token),
            browser=browser or self._recogniser.at_once(said.user_agent, said.client_hints),
            address=found,
            user_agent=tidy(said.user_agent) if said.user_agent is not None else None,
            identifier_hash=self.seal.identifier_hash(said.identifier),
            ids=tuple(self._new_id() for _ in range(len(policy.rules) + 1)),
            challenge_id=self._new_id(),
            place=self._geo.lookup(found),
        )
        return Asked(tenant=policy.tenant, policy=policy, visit=visit, salt=salt, reach=failures_reach(policy.rules))


def knock_of(asked: Asked) -> Knock:
    """What this login asks the stores about."""
    visit, since = asked.visit, None if asked.reach is None else asked.visit.now - asked.reach
    crowd, browser = asked.crowd, asked.visit.browser
    made = crowd.device_id if crowd else None
    first, last = (None, None) if since is None or visit.address is None else bounds(visit.address)
    return Knock(
        tenant=asked.tenant,
        member_id=visit.asked.member_id,
        device_id=visit.claim.device_id if visit.claim else made,
        session_id=visit.asked.session_id,
        attempt_id=visit.asked.attempt_id,
        failures_since=since,
        first_ip=first,
        last_ip=last,
        needs=int(asked.policy.needs & STORED),
        since=visit.now - asked.policy.reach,
        twin_since=visit.now - AT_ONCE if crowd is not None and made is None else None,
        ip=visit.address.text if visit.address else None,
        browser=browser.family,
        browser_version=browser.version,
        os=browser.os,
    )


def _made(asked: Asked, planned: Plan) -> None:
    """Tell the others of a crowd which device the first of them made."""
    if asked.crowd is not None and asked.crowd.device_id is None:
        asked.crowd.device_id = planned.device_id


def browser_of(asked: Asked) -> tuple[str, ...] | None:
    """What makes two first logins those of one browser; None for what is no first login, or comes from nowhere."""
    visit, said = asked.visit, asked.visit.asked
    first = said.outcome is LoginOutcome.SUCCESS and visit.claim is None and said.method is not Method.IMPERSONATION
    if not first or said.member_id is None or visit.address is None or not visit.user_agent:
        return None
    return (asked.tenant, said.member_id, visit.user_agent, visit.address.text)


def _check(opening: Opening | None, member_id: str) -> None:
    """Raise GuardError: NOT_FOUND for a member that went away, CONFLICT for somebody else's session."""
    if opening is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.")
    if opening.session_owner not in (None, member_id):
        problem = Problem(pointer="/session_id", detail="this session is another member's")
        raise GuardError(ErrorCode.CONFLICT, "The login was refused.", problem)
