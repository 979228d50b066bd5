"""What operators change: each in one transaction with its line in the audit log, told to every worker after the commit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.devices.cookie import CookieSettings
from accessguard.devices.model import Device
from accessguard.devices.store import DeviceStore
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.events.audit import AuditStore, Entry
from accessguard.guard.changes import Changes
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor
from accessguard.members.model import Member
from accessguard.members.store import MemberStore
from accessguard.policies.model import CookieChoice, RuleBody, RuleRecord, Settings, normalised, parse
from accessguard.policies.store import PolicyStore
from accessguard.rules.engine import judge
from accessguard.rules.model import Access, Facts, Kind, Mode, Outcome, SessionFact, Stage
from accessguard.rules.networks import Address
from accessguard.sessions.live import Change
from accessguard.sessions.store import SessionStore
from accessguard.violations.model import Resolution, Violation
from accessguard.violations.store import ViolationStore


class DeviceChange(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator says of a device; UNSET leaves it as it is."""

    access: Access | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType | None = msgspec.UNSET


class MemberChange(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator says of a member; UNSET leaves it as it is."""

    checks_enabled: bool | msgspec.UnsetType = msgspec.UNSET
    checks_disabled_until: datetime | msgspec.UnsetType | None = msgspec.UNSET
    note: str | msgspec.UnsetType = msgspec.UNSET
    tags: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One act for the audit log: by whom, on what, why, when."""

    tenant: str
    actor: Actor
    action: str
    target: str
    reason: str | None
    at: datetime


class Operators:
    """Every method raises GuardError: NOT_FOUND for what is not the tenant's, INVALID, CONFLICT, UNAVAILABLE."""

    def __init__(self, *, db: Database, changes: Changes, new_id: Callable[[], UUID]) -> None:
        self._db = db
        self._changes = changes
        self._new_id = new_id

    async def change_member(
        self, tenant: str, actor: Actor, member_id: str, asked: MemberChange, *, reason: str | None, now_ms: int
    ) -> Member:
        """Switch the checks of a member off or on, note, tag."""
        now = from_ms(now_ms)
        async with self._db.transaction() as tx:
            store = MemberStore(tx)
            before = await self._member(store, tenant, member_id, actor, now)
            after = _annotated(before, asked, reason)
            await store.annotate(tenant, after)
            fields = ("checks_enabled", "checks_disabled_until", "note", "tags")
            act = Act(tenant=tenant, actor=actor, action="member.change", target=member_id, reason=reason, at=now)
            await self._audit(tx, act, _fields(before, fields), _fields(after, fields))
        await self._changes.announce(Change(tenant=tenant, kind="member_changed", member_id=member_id))
        return after

    async def change_device(
        self,
        tenant: str,
        actor: Actor,
        member_id: str,
        device_id: UUID,
        asked: DeviceChange,
        *,
        reason: str | None,
        now_ms: int,
    ) -> Device:
        """Block a device, allow it, give it a name."""
        now = from_ms(now_ms)
        async with self._db.transaction() as tx:
            await self._member(MemberStore(tx), tenant, member_id, actor, now)
            store = DeviceStore(tx)
            before = await self._device(store, tenant, member_id, device_id, now)
            after = _decided(before, asked, actor, reason, now)
            await store.change(tenant, member_id, after)
            fields = ("access", "name")
            act = Act(tenant=tenant, actor=actor, action="device.change", target=str(device_id), reason=reason, at=now)
            await self._audit(tx, act, _fields(before, fields), _fields(after, fields))
        await self._changes.announce(Change(tenant=tenant, kind="device_changed", member_id=member_id))
        return after

    async def forget_device(
        self, tenant: str, actor: Actor, member_id: str, device_id: UUID, *, reason: str | None, now_ms: int
    ) -> None:
        """Forget a device, which frees its slot and ends its sessions."""
        now = from_ms(now_ms)
        async with self._db.transaction() as tx:
            await self._member(MemberStore(tx), tenant, member_id, actor, now)
            store = DeviceStore(tx)
            before = await self._device(store, tenant, member_id, device_id, now)
            ended = await store.forget(tenant, member_id, device_id, at=now, by=actor.subject)
            fields = ("label", "access", "name")
            act = Act(tenant=tenant, actor=actor, action="device.forget", target=str(device_id), reason=reason, at=now)
            await self._audit(tx, act, _fields(before, fields), _fields(None, fields))
        change = Change(tenant=tenant, kind="device_changed", member_id=member_id, session_ids=ended or ())
        await self._changes.announce(change)

    async def end_sessions(
        self, tenant: str, actor: Actor, member_id: str, *, reason: str | None, now_ms: int
    ) -> tuple[str, ...]:
        """End every open session of a member; their ids."""
        now = from_ms(now_ms)
        async with self._db.transaction() as tx:
            await self._member(MemberStore(tx), tenant, member_id, actor, now)
            store = SessionStore(tx)
            ended = await store.end_all(tenant, member_id, at=now, reason="ended_by_operator", by=actor.subject)
            after = {"ended": list(ended)}
            act = Act(tenant=tenant, actor=actor, action="sessions.end", target=member_id, reason=reason, at=now)
            await self._audit(tx, act, None, after)
        change = Change(tenant=tenant, kind="session_ended", member_id=member_id, session_ids=ended)
        await self._changes.announce(change)
        return ended

    async def end_session(self, tenant: str, actor: Actor, session_id: str, *, reason: str, now_ms: int) -> str | None:
        """End one session; whose it was, or None when it was not open."""
        now = from_ms(now_ms)
        async with self._db.transaction() as tx:
            store = SessionStore(tx)
            member_id = await store.end(tenant, session_id, at=now, reason=reason, by=actor.subject)
            if member_id is not None:
                act = Act(tenant=tenant, actor=actor, action="session.end", target=session_id, reason=reason, at=now)
                await self._audit(tx, act, None, {"end_reason": reason})
        return member_id

    async def create_tenant(self, actor: Actor, tenant: str, name: str, *, reason: str | None, now_ms: int) -> None:
        """Make a tenant; one that is there stays as it is."""
        now = from_ms(now_ms)
        async with self._db.transaction() as tx:
            if await PolicyStore(tx).ensure_tenant(tenant, name, at=now):
                act = Act(tenant=tenant, actor=actor, action="tenant.create", target=tenant, reason=reason, at=now)
                await self._audit(tx, act, None, {"name": name})
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))

    async def resolve(
        self,
        tenant: str,
        actor: Actor,
        violation_id: UUID,
        *,
        resolution: Resolution | None,
        note: str | None,
        reason: str | None,
        now_ms: int,
    ) -> Violation:
        """Say what a case turned out to be; changes no decision."""
        async with self._db.transaction() as tx:
            store = ViolationStore(tx)
            before = await store.one(tenant, violation_id, reader=actor.subject)
            if before is None:
                raise GuardError(ErrorCode.NOT_FOUND, "There is no such violation.")
            after = msgspec.structs.replace(
                before, resolution=resolution or before.resolution, note=before.note if note is None else note
            )
            await store.resolve(tenant, violation_id, after.resolution, after.note)
            fields = ("resolution", "note")
            target = str(violation_id)
            act = Act(
                tenant=tenant, actor=actor, action="violation.resolve", target=target, reason=reason, at=from_ms(now_ms)
            )
            await self._audit(tx, act, _fields(before, fields), _fields(after, fields))
        return after

    async def create_rule(
        self,
        tenant: str,
        actor: Actor,
        rule_id: UUID,
        body: RuleBody,
        *,
        origin: Address | None,
        confirmed: bool,
        reason: str | None,
        now_ms: int,
    ) -> RuleRecord:
        """Save a new rule; with an id that is already stored (a retry), answer what is stored."""
        now = from_ms(now_ms)
        checked = _checked(body, rule_id, origin, confirmed=confirmed, now=now)
        async with self._db.transaction() as tx:
            store = PolicyStore(tx)
            made = await store.create(tenant, rule_id, checked, at=now, actor=actor.subject, reason=reason)
            if made is not None:
                act = Act(tenant=tenant, actor=actor, action="rule.create", target=str(rule_id), reason=reason, at=now)
                await self._audit(tx, act, None, made.body)
            found = made or await store.rule(tenant, rule_id)
        if found is None:
            raise GuardError(ErrorCode.CONFLICT, "The rule of that idempotency key has been deleted since.")
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))
        return found

    async def replace_rule(
        self,
        tenant: str,
        actor: Actor,
        rule_id: UUID,
        body: RuleBody,
        *,
        origin: Address | None,
        confirmed: bool,
        reason: str | None,
        now_ms: int,
    ) -> RuleRecord:
        """Save the next version of a rule."""
        now = from_ms(now_ms)
        checked = _checked(body, rule_id, origin, confirmed=confirmed, now=now)
        async with self._db.transaction() as tx:
            store = PolicyStore(tx)
            before = await store.rule(tenant, rule_id)
            after = await store.replace(tenant, rule_id, checked, at=now, actor=actor.subject, reason=reason)
            if before is None or after is None:
                raise _no_rule()
            target = str(rule_id)
            act = Act(tenant=tenant, actor=actor, action="rule.replace", target=target, reason=reason, at=now)
            await self._audit(tx, act, before.body, after.body)
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))
        return after

    async def delete_rule(self, tenant: str, actor: Actor, rule_id: UUID, *, reason: str | None, now_ms: int) -> None:
        """Take a rule out of force; its versions stay."""
        now = from_ms(now_ms)
        async with self._db.transaction() as tx:
            gone = await PolicyStore(tx).delete(tenant, rule_id, at=now, actor=actor.subject, reason=reason)
            if gone is None:
                raise _no_rule()
            act = Act(tenant=tenant, actor=actor, action="rule.delete", target=str(rule_id), reason=reason, at=now)
            await self._audit(tx, act, gone.body, None)
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))

    async def save_settings(
        self, tenant: str, actor: Actor, settings: Settings, *, reason: str | None, now_ms: int
    ) -> Settings:
        """Replace the tenant's settings."""
        _check_cookie(settings.cookie)
        async with self._db.transaction() as tx:
            store = PolicyStore(tx)
            before = await store.settings(tenant)
            after = await store.save_settings(tenant, settings)
            if after is None:
                raise GuardError(ErrorCode.NOT_FOUND, "There is no such tenant.")
            now = from_ms(now_ms)
            act = Act(tenant=tenant, actor=actor, action="settings.replace", target=tenant, reason=reason, at=now)
            await self._audit(tx, act, before, after)
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))
        return after

    async def _member(self, store: MemberStore, tenant: str, member_id: str, actor: Actor, now: datetime) -> Member:
        """The member, whose row is held until the end; every change of its state waits for this one."""
        held = await store.lock(tenant, member_id)
        found = await store.one(tenant, member_id, reader=actor.subject, now=now) if held else None
        if found is None:
            raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.")
        return found

    async def _device(self, store: DeviceStore, tenant: str, member_id: str, device_id: UUID, now: datetime) -> Device:
        found = await store.one(tenant, member_id, device_id, now=now)
        if found is None:
            raise GuardError(ErrorCode.NOT_FOUND, "There is no such device.")
        return found

    async def _audit(self, tx: Database, act: Act, before: Any, after: Any) -> None:
        entry = Entry(
            id=self._new_id(),
            at=act.at,
            actor=act.actor.subject,
            role=act.actor.role,
            action=act.action,
            target_kind=act.action.partition(".")[0],
            target_id=act.target,
            before=before,
            after=after,
            reason=act.reason,
        )
        await AuditStore(tx).add(act.tenant, entry)


def _fields(of: msgspec.Struct | None, names: tuple[str, ...]) -> dict[str, Any] | None:
    """What a change is about, out of all there is."""
    return None if of is None else {name: getattr(of, name) for name in names}


def _annotated(before: Member, asked: MemberChange, reason: str | None) -> Member:
    given = {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not msgspec.UNSET}
    if given.get("checks_enabled") is True:
        given |= {"checks_disabled_until": None, "checks_reason": None}
    elif given.get("checks_enabled") is False:
        given = {"checks_disabled_until": None, "checks_reason": reason} | given
    return msgspec.structs.replace(before, **given)


def _decided(before: Device, asked: DeviceChange, actor: Actor, reason: str | None, now: datetime) -> Device:
    after = before if asked.name is msgspec.UNSET else msgspec.structs.replace(before, name=asked.name or None)
    if asked.access is msgspec.UNSET:
        return after
    return msgspec.structs.replace(
        after, access=asked.access, access_reason=reason, access_by=actor.subject, access_at=now
    )


def _check_cookie(asked: CookieChoice) -> None:
    """Refuse what no browser would keep, before a login stumbles over it."""
    try:
        CookieSettings(prefix=asked.prefix, domain=asked.domain, same_site=asked.same_site)
    except ValueError as error:
        problem = Problem(pointer="/cookie/domain", detail=str(error))
        raise GuardError(ErrorCode.INVALID, "The settings were refused.", problem) from None


def _checked(body: RuleBody, rule_id: UUID, origin: Address | None, *, confirmed: bool, now: datetime) -> RuleBody:
    """The body with its defaults; refused when it would lock out its author, unless that is confirmed."""
    full = normalised(body)
    rule = parse(full, id=rule_id, version=1)
    if confirmed or rule.mode is not Mode.ENFORCE or rule.kind not in {Kind.IP_DENY, Kind.IP_ALLOW_ONLY}:
        return full
    session = SessionFact(id="author", device_id=None, started_at=now, last_activity=now)
    facts = Facts(now=now, stage=Stage.LOGIN, session=session, device=None, address=origin)
    everybody = msgspec.structs.replace(rule, scope=type(rule.scope)())
    if judge((everybody,), facts).outcome is Outcome.ALLOW:
        return full
    detail = (
        'this list would lock you out at your present address; send "confirm_lockout": true to save it all the same'
    )
    raise GuardError(ErrorCode.CONFLICT, "The rule was refused.", Problem(pointer="/params/networks", detail=detail))


def _no_rule() -> GuardError:
    return GuardError(ErrorCode.NOT_FOUND, "There is no such rule.")
