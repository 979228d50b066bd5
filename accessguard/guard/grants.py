"""What a member is granted: enrolments by the platform, passes by operators or from its own budget."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.acts import Act, log
from accessguard.guard.changes import Changes
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor
from accessguard.members.enrolments import EnrolmentStore
from accessguard.members.model import Enrolment, Pass, PassKind
from accessguard.members.passes import PassStore
from accessguard.members.store import MemberStore
from accessguard.policies.model import Settings
from accessguard.rules.model import EnrolmentStatus
from accessguard.sessions.live import Change

LONGEST_PASS: Final = timedelta(days=366)
OWN_PASS: Final = timedelta(days=1)
MOST_PASSES: Final = 20
OWN_KINDS: Final = frozenset({PassKind.EXTRA_DEVICE, PassKind.EXTRA_SESSION})


class Grants:
    """Every method raises GuardError: NOT_FOUND for what is not the tenant's, INVALID, CONFLICT, UNAVAILABLE."""

    def __init__(self, *, db: Database, changes: Changes, new_id: Callable[[], UUID]) -> None:
        self._db = db
        self._changes = changes
        self._new_id = new_id

    async def enrol(
        self, tenant: str, actor: Actor, member_id: str, enrolment: Enrolment, *, reason: str | None
    ) -> Enrolment:
        """Make or replace an enrolment; a member that is unknown comes into being, as at a login."""
        check_enrolment(enrolment)
        async with self._db.transaction() as tx:
            members, store = MemberStore(tx), EnrolmentStore(tx)
            await members.ensure(tenant, member_id, at=enrolment.updated_at)
            await members.lock(tenant, member_id)
            change_id = self._new_id()
            changed = await store.put(
                tenant, member_id, enrolment, change_id=change_id, actor=actor.subject, reason=reason
            )
            kept = enrolment if changed else await store.one(tenant, member_id, enrolment.product_id)
        if changed:
            await self._announce(tenant, member_id)
        return kept or enrolment

    async def withdraw(
        self, tenant: str, actor: Actor, member_id: str, product_id: str, *, reason: str | None, now_ms: int
    ) -> None:
        """Take an enrolment away; what it was stays in the history."""
        async with self._db.transaction() as tx:
            await self._lock(tx, tenant, member_id)
            gone = await EnrolmentStore(tx).delete(
                tenant,
                member_id,
                product_id,
                at=from_ms(now_ms),
                change_id=self._new_id(),
                actor=actor.subject,
                reason=reason,
            )
        if not gone:
            raise GuardError(ErrorCode.NOT_FOUND, "There is no such enrolment.")
        await self._announce(tenant, member_id)

    async def give_pass(self, tenant: str, actor: Actor, member_id: str, given: Pass) -> Pass:
        """Give a member a pass; with an id that is already stored (a retry), answer what is stored."""
        async with self._db.transaction() as tx:
            await self._lock(tx, tenant, member_id)
            stored = await PassStore(tx).one(tenant, member_id, given.id)
            if stored is not None:
                return stored
            await self._issue(tx, tenant, actor, member_id, given)
        await self._announce(tenant, member_id)
        return given

    async def take_pass(
        self, tenant: str, member_id: str, kind: PassKind, *, settings: Settings, until: datetime, now_ms: int
    ) -> Pass:
        """Give a member a pass on its own budget, `settings.passes_per_month` in a month of the tenant's calendar.

        It lasts a day at most, and checks are not the member's to suspend. Raises GuardError(CONFLICT) when the budget is used up.
        """
        now = from_ms(now_ms)
        if kind not in OWN_KINDS:
            raise GuardError(ErrorCode.FORBIDDEN, "This kind of pass is given by operators only.")
        actor = Actor(subject=member_id, role="member")
        given = Pass(
            id=self._new_id(),
            kind=kind,
            until=min(until, now + OWN_PASS),
            reason=None,
            own=True,
            created_at=now,
            created_by=actor.subject,
        )
        async with self._db.transaction() as tx:
            await self._lock(tx, tenant, member_id)
            used = await PassStore(tx).used(tenant, member_id, since=month_of(now, settings.time_zone))
            if used >= settings.passes_per_month:
                raise GuardError(ErrorCode.CONFLICT, "The passes of this month are used up.")
            await self._issue(tx, tenant, actor, member_id, given)
        await self._announce(tenant, member_id)
        return given

    async def _issue(self, tx: Database, tenant: str, actor: Actor, member_id: str, given: Pass) -> None:
        _check_pass(given)
        store, now = PassStore(tx), given.created_at
        if len(await store.live(tenant, member_id, now=now)) >= MOST_PASSES:
            raise GuardError(ErrorCode.CONFLICT, f"The member holds {MOST_PASSES} passes already.")
        if not await store.issue(tenant, member_id, given):
            raise GuardError(ErrorCode.CONFLICT, "The pass of that idempotency key is another member's.")
        act = Act(
            tenant=tenant,
            actor=actor,
            action="pass.give",
            target=str(given.id),
            reason=given.reason,
            at=given.created_at,
            member_id=member_id,
        )
        after = {"member_id": member_id, "kind": given.kind, "until": given.until}
        await log(tx, act, None, after, entry_id=self._new_id())

    async def _lock(self, tx: Database, tenant: str, member_id: str) -> None:
        if not await MemberStore(tx).lock(tenant, member_id):
            raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.")

    async def _announce(self, tenant: str, member_id: str) -> None:
        await self._changes.announce(Change(tenant=tenant, kind="member_changed", member_id=member_id))


def month_of(now: datetime, time_zone: str) -> datetime:
    """When the present month began in a time zone (IANA; one that is unknown is UTC)."""
    try:
        local = now.astimezone(ZoneInfo(time_zone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        local = now
    return local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def check_enrolment(asked: Enrolment) -> None:
    """Raise GuardError(INVALID) for times that contradict each other."""
    if asked.ends_at is not None and asked.ends_at <= asked.starts_at:
        raise _refused("/ends_at", "is not after starts_at")
    if asked.reopens_at is not None and asked.status is not EnrolmentStatus.FROZEN:
        raise _refused("/reopens_at", "only what is frozen reopens")


def _check_pass(given: Pass) -> None:
    if not given.created_at < given.until <= given.created_at + LONGEST_PASS:
        raise _refused("/until", f"is not in the next {LONGEST_PASS.days} days")


def _refused(pointer: str, detail: str) -> GuardError:
    return GuardError(ErrorCode.INVALID, "The body was refused.", Problem(pointer=pointer, detail=detail))
