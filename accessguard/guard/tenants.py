"""Tenants of an installation: whose they are, whether they are open, and their end in two steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.acts import Act, log
from accessguard.guard.changes import Changes
from accessguard.guard.confirmation import Confirmation, Confirmations
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor
from accessguard.guard.spooling import Spooling
from accessguard.guard.upkeep import MOST, Chore, Job
from accessguard.members.erasure import ErasureStore
from accessguard.policies.store import PolicyStore
from accessguard.policies.tenants import GENERATIONS, TenantRecord, TenantStatus, TenantStore
from accessguard.sessions.live import Change, Live

EVERYWHERE: Final = "*"
"""Whose audit log tells of the end of a tenant that had no parent."""
DEEPEST: Final = GENERATIONS
"""Generations of tenants, an agency's agency included."""
LAST: Final = ("rule", "job", "member")
"""Tables that others refer to; each takes what is left of those along."""
KEPT: Final = frozenset({"erasure"})


class TenantChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a tenant; UNSET leaves it as it is, a `parent` of None makes it nobody's."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    status: TenantStatus | msgspec.UnsetType = msgspec.UNSET
    parent: str | msgspec.UnsetType | None = msgspec.UNSET


class Tenants:
    """Every method raises GuardError: NOT_FOUND, INVALID, CONFLICT, UNAVAILABLE."""

    def __init__(
        self,
        *,
        db: Database,
        live: Live,
        changes: Changes,
        spooling: Spooling,
        confirmations: Confirmations,
        new_id: Callable[[], UUID],
    ) -> None:
        self._db = db
        self._live = live
        self._changes = changes
        self._spooling = spooling
        self._confirmations = confirmations
        self._new_id = new_id
        self.chore = Chore(job=Job.TENANTS, every=timedelta(seconds=10), step=self.empty, most=1)

    async def change(
        self, actor: Actor, tenant: str, asked: TenantChange, *, reason: str | None, now_ms: int
    ) -> TenantRecord:
        """Rename a tenant, close or open it, give it a parent."""
        async with self._db.transaction() as tx:
            store = TenantStore(tx)
            before = await _open(store, tenant)
            given = {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not msgspec.UNSET}
            after: TenantRecord = msgspec.structs.replace(before, **given)
            if after.parent is not None and after.parent != before.parent:
                await _check_parent(store, tenant, after.parent)
            await store.change(after)
            names = ("name", "status", "parent")
            act = Act(
                tenant=tenant, actor=actor, action="tenant.change", target=tenant, reason=reason, at=from_ms(now_ms)
            )
            said = ({name: getattr(each, name) for name in names} for each in (before, after))
            await log(tx, act, *said, entry_id=self._new_id())
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))
        return after

    async def ask_to_delete(self, actor: Actor, tenant: str, *, now_ms: int) -> tuple[Confirmation, int]:
        """What stands for "yes, delete it", and how many members go. CONFLICT while it has children."""
        store = TenantStore(self._db)
        await _open(store, tenant)
        await _check_childless(store, tenant)
        token = self._confirmations.give(tenant, actor, b"tenant.delete", about=self._new_id(), now=from_ms(now_ms))
        return token, await store.members(tenant)

    async def delete(
        self, actor: Actor, tenant: str, confirmation: str, *, reason: str | None, now_ms: int
    ) -> TenantRecord:
        """Close a tenant for good; upkeep then takes away what it has. CONFLICT while it has children."""
        now = from_ms(now_ms)
        about = self._confirmations.read(confirmation, tenant, actor, b"tenant.delete", now=now)
        async with self._db.transaction() as tx:
            store = TenantStore(tx)
            before = await _open(store, tenant)
            await _check_childless(store, tenant)
            if not await self._spooling.forget(tx, tenant, None):
                raise GuardError(ErrorCode.UNAVAILABLE, "Logins that waited are being written; try again shortly.")
            await store.close(tenant, at=now)
            await ErasureStore(tx).note(tenant, about, at=now)
            act = Act(
                tenant=before.parent or EVERYWHERE,
                actor=actor,
                action="tenant.delete",
                target=tenant,
                reason=reason,
                at=now,
            )
            await log(tx, act, {"name": before.name}, None, entry_id=self._new_id())
        await self._changes.announce(Change(tenant=tenant, kind="tenant_deleted", erasure=about))
        return msgspec.structs.replace(before, status=TenantStatus.DELETING)

    async def empty(self, tx: Database, now: datetime) -> int:
        """Take away a portion of what a deleted tenant has; the rows, 0 when nothing is left of any."""
        tenants, store = TenantStore(tx), ErasureStore(tx)
        while (tenant := await tenants.closing()) is not None:
            done = await self._portion(store, tenants, tenant)
            if done:
                return done
            await tenants.emptied(tenant, at=now)
        return 0

    async def _portion(self, store: ErasureStore, tenants: TenantStore, tenant: str) -> int:
        for table in _in_order(tuple(await store.tables())):
            gone = await tenants.some_members(tenant, most=MOST) if table == "member" else ()
            done = await store.portion(table, tenant, None, most=MOST)
            for member_id in gone:
                await self._live.erase(tenant, member_id)
            if done:
                return done
        return 0


def _in_order(tables: Sequence[str]) -> list[str]:
    return [*(each for each in tables if each not in {*LAST, *KEPT}), *(each for each in LAST if each in tables)]


async def _open(store: TenantStore, tenant: str) -> TenantRecord:
    """The tenant, whose row is held until the transaction ends."""
    await PolicyStore(store.db).hold(tenant)
    found = await store.one(tenant)
    if found is None or found.status is TenantStatus.DELETING:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such tenant.")
    return found


async def _check_parent(store: TenantStore, tenant: str, parent: str) -> None:
    """Refuse a parent that is not there, whose own parents lead back, or that has too many generations above and below."""
    above: str | None = parent
    for _ in range(DEEPEST - await store.height(tenant, most=DEEPEST)):
        if above == tenant:
            raise _refused("is the tenant itself, or one of its children")
        if above is None:
            return
        await PolicyStore(store.db).hold(above)
        found = await store.one(above)
        if found is None or found.status is TenantStatus.DELETING:
            raise _refused("there is no such tenant")
        above = found.parent
    if above is not None:
        raise _refused(f"would be more than {DEEPEST} generations")


async def _check_childless(store: TenantStore, tenant: str) -> None:
    if await store.has_children(tenant):
        raise GuardError(ErrorCode.CONFLICT, "The tenant has children; give them another parent or delete them first.")


def _refused(detail: str) -> GuardError:
    return GuardError(ErrorCode.INVALID, "The tenant was refused.", Problem(pointer="/parent", detail=detail))
