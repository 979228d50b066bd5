"""What operators change of a member: each in one transaction with its line in the audit log, told to every worker after the commit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.devices.model import Device
from accessguard.devices.store import DeviceStore
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.acts import Act, fields, log
from accessguard.guard.changes import Changes
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor
from accessguard.members.model import Member
from accessguard.members.store import MemberStore
from accessguard.rules.model import Access
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
            names = ("checks_enabled", "checks_disabled_until", "note", "tags")
            act = Act(tenant=tenant, actor=actor, action="member.change", target=member_id, reason=reason, at=now)
            await log(tx, act, fields(before, names), fields(after, names), entry_id=self._new_id())
        await self._changes.announce(Change(tenant=tenant, kind="member_changed", member_id=member_id))
        return after

    async def exported(
        self, tenant: str, actor: Actor, member_id: str, *, ip: str | None, reason: str | None, now_ms: int
    ) -> None:
        """Note that somebody is given all that is stored of a member, before it is."""
        act = Act(
            tenant=tenant, actor=actor, action="member.export", target=member_id, reason=reason, at=from_ms(now_ms)
        )
        await log(self._db, act, None, {"by_address": ip is not None}, entry_id=self._new_id())

    async def read(self, tenant: str, actor: Actor, action: str, target: str, *, now_ms: int) -> None:
        """Note that somebody is shown what is sensitive, before it is; an `action` such as `member.bundle`, and of what."""
        act = Act(tenant=tenant, actor=actor, action=action, target=target, reason=None, at=from_ms(now_ms))
        await log(self._db, act, None, None, entry_id=self._new_id())

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
            generation = await store.change(tenant, member_id, after)
            sessions = await store.sessions(tenant, member_id, before.id)
            names = ("access", "name")
            act = Act(
                tenant=tenant,
                actor=actor,
                action="device.change",
                target=str(before.id),
                reason=reason,
                at=now,
                member_id=member_id,
            )
            await log(tx, act, fields(before, names), fields(after, names), entry_id=self._new_id())
        told = Change(
            tenant=tenant,
            kind="device_changed",
            member_id=member_id,
            session_ids=sessions,
            blocked=after.access is Access.BLOCKED,
            device_id=after.id,
            merged_ids=after.merged_ids,
            generation=generation,
        )
        await self._changes.announce(told)
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
            ended = await store.forget(tenant, member_id, before.id, at=now, by=actor.subject)
            names = ("label", "access", "name")
            act = Act(
                tenant=tenant,
                actor=actor,
                action="device.forget",
                target=str(before.id),
                reason=reason,
                at=now,
                member_id=member_id,
            )
            await log(tx, act, fields(before, names), None, entry_id=self._new_id())
        change = Change(tenant=tenant, kind="device_changed", member_id=member_id, session_ids=ended or (), ended=True)
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
            await log(tx, act, None, after, entry_id=self._new_id())
        change = Change(tenant=tenant, kind="session_ended", member_id=member_id, session_ids=ended, ended=True)
        await self._changes.announce(change)
        return ended

    async def end_session(self, tenant: str, actor: Actor, session_id: str, *, reason: str, now_ms: int) -> str | None:
        """End one session; whose it was, or None when it was not open."""
        now = from_ms(now_ms)
        async with self._db.transaction() as tx:
            store = SessionStore(tx)
            member_id = await store.end(tenant, session_id, at=now, reason=reason, by=actor.subject)
            if member_id is not None:
                act = Act(
                    tenant=tenant,
                    actor=actor,
                    action="session.end",
                    target=session_id,
                    reason=reason,
                    at=now,
                    member_id=member_id,
                )
                await log(tx, act, None, {"end_reason": reason}, entry_id=self._new_id())
        return member_id

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
            names = ("resolution", "note")
            target = str(violation_id)
            act = Act(
                tenant=tenant,
                actor=actor,
                action="violation.resolve",
                target=target,
                reason=reason,
                at=from_ms(now_ms),
                member_id=before.member_id,
            )
            await log(tx, act, fields(before, names), fields(after, names), entry_id=self._new_id())
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
