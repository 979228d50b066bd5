"""What operators write about a member, and what is counted of all of them, brought up to date before it is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final
from uuid import UUID

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.acts import Act, log
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor
from accessguard.members.comments import Comment, CommentStore
from accessguard.members.store import MemberStore
from accessguard.tallies.store import TallyStore

AT_ONCE: Final = 1_000
LONGEST_S: Final = 0.05
"""How long a report does so; upkeep leaves less than that in a usual minute, and takes the rest of a school's past by itself."""


class Annals:
    """Every method raises GuardError: NOT_FOUND for what is not the tenant's, CONFLICT, UNAVAILABLE."""

    def __init__(self, *, db: Database, new_id: Callable[[], UUID]) -> None:
        self._db = db
        self._new_id = new_id

    async def comment(
        self, tenant: str, actor: Actor, member_id: str, comment_id: UUID, text: str, *, now_ms: int
    ) -> Comment:
        """Write a comment; with an id that is already stored (a retry), answer what is stored."""
        made = Comment(id=comment_id, at=from_ms(now_ms), author=actor.subject, role=actor.role, text=text)
        async with self._db.transaction() as tx:
            if not await MemberStore(tx).exists(tenant, member_id):
                raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.")
            store = CommentStore(tx)
            if not await store.add(tenant, member_id, made):
                return await self._stored(store, tenant, member_id, comment_id)
            act = Act(
                tenant=tenant,
                actor=actor,
                action="comment.add",
                target=str(comment_id),
                reason=None,
                at=made.at,
                member_id=member_id,
            )
            await log(tx, act, None, {"member_id": member_id}, entry_id=self._new_id())
        return made

    async def add_up(self, tenant: str) -> None:
        """Have what was counted of a tenant added to its days, as far as that is done at once."""
        clock = asyncio.get_running_loop().time
        until = clock() + LONGEST_S
        while True:
            async with self._db.transaction() as tx:
                done = await TallyStore(tx).add_up(most=AT_ONCE, tenant=tenant)
            if done < AT_ONCE or clock() > until:
                return

    async def _stored(self, store: CommentStore, tenant: str, member_id: str, comment_id: UUID) -> Comment:
        stored = await store.one(tenant, member_id, comment_id)
        if stored is None:
            raise GuardError(ErrorCode.CONFLICT, "The comment of that idempotency key is another member's.")
        return stored
