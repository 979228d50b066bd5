"""What can be done to many members at once: each batch in one transaction, with a line of the audit log for each member it changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

from accessguard.database import Database
from accessguard.guard.acts import Act, log
from accessguard.guard.bulk import Actions, Batch, BulkAction
from accessguard.guard.changes import Changes
from accessguard.members.bulk import BulkStore, Changed
from accessguard.sessions.live import Change
from accessguard.sessions.store import SessionStore


class Acting:
    """The actions that need no room of their own; whoever has another one adds it to `actions`."""

    def __init__(self, *, db: Database, changes: Changes, new_id: Callable[[], UUID]) -> None:
        self._db = db
        self._changes = changes
        self._new_id = new_id

    @property
    def actions(self) -> Actions:
        """By their names."""
        return {
            BulkAction.TAG: self.tag,
            BulkAction.UNTAG: self.untag,
            BulkAction.EXEMPT: self.exempt,
            BulkAction.UNEXEMPT: self.unexempt,
            BulkAction.END_SESSIONS: self.end_sessions,
            BulkAction.DEACTIVATE: self.deactivate,
        }

    async def tag(self, batch: Batch) -> int:
        """Give tags."""
        async with self._db.transaction() as tx:
            changed = await BulkStore(tx).tag(batch.tenant, batch.member_ids, batch.order.tags)
            await self._log(tx, batch, changed)
        return await self._told(batch, changed)

    async def untag(self, batch: Batch) -> int:
        """Take tags away."""
        async with self._db.transaction() as tx:
            changed = await BulkStore(tx).untag(batch.tenant, batch.member_ids, batch.order.tags)
            await self._log(tx, batch, changed)
        return await self._told(batch, changed)

    async def exempt(self, batch: Batch) -> int:
        """Switch checks off."""
        order = batch.order
        async with self._db.transaction() as tx:
            changed = await BulkStore(tx).checks(
                batch.tenant, batch.member_ids, enabled=False, until=order.until, reason=order.reason
            )
            await self._log(tx, batch, changed)
        return await self._told(batch, changed)

    async def unexempt(self, batch: Batch) -> int:
        """Switch checks on."""
        async with self._db.transaction() as tx:
            changed = await BulkStore(tx).checks(batch.tenant, batch.member_ids, enabled=True, until=None, reason=None)
            await self._log(tx, batch, changed)
        return await self._told(batch, changed)

    async def deactivate(self, batch: Batch) -> int:
        """Deactivate enrolments."""
        order, actor = batch.order, batch.actor.subject
        async with self._db.transaction() as tx:
            changed = await BulkStore(tx).deactivate(
                batch.tenant, batch.member_ids, order.product_id, at=batch.at, actor=actor, reason=order.reason
            )
            await self._log(tx, batch, changed)
        return await self._told(batch, changed)

    async def end_sessions(self, batch: Batch) -> int:
        """End every open session."""
        ended: dict[str, tuple[str, ...]] = {}
        async with self._db.transaction() as tx:
            store = SessionStore(tx)
            for member_id in await BulkStore(tx).hold(batch.tenant, batch.member_ids):
                ids = await store.end_all(
                    batch.tenant, member_id, at=batch.at, reason="ended_by_operator", by=batch.actor.subject
                )
                if ids:
                    ended[member_id] = ids
            changed = [
                Changed(member_id=member_id, before=None, after={"ended": ids}) for member_id, ids in ended.items()
            ]
            await self._log(tx, batch, changed)
        for member_id, ids in ended.items():
            change = Change(tenant=batch.tenant, kind="session_ended", member_id=member_id, session_ids=ids, ended=True)
            await self._changes.announce(change)
        return len(ended)

    async def _log(self, tx: Database, batch: Batch, changed: Sequence[Changed]) -> None:
        for each in changed:
            act = Act(
                tenant=batch.tenant,
                actor=batch.actor,
                action=f"member.{batch.order.action}",
                target=each.member_id,
                reason=batch.order.reason,
                at=batch.at,
            )
            await log(tx, act, each.before, each.after, entry_id=self._new_id())

    async def _told(self, batch: Batch, changed: Sequence[Changed]) -> int:
        """How many there were, once every worker has been told."""
        changes = (Change(tenant=batch.tenant, kind="member_changed", member_id=each.member_id) for each in changed)
        await asyncio.gather(*(self._changes.announce(change) for change in changes))
        return len(changed)
