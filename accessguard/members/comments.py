"""What operators write about a member, one line after the other: nothing of it is edited or deleted, but with the member."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database, Row, both_ways


class Comment(msgspec.Struct, frozen=True, kw_only=True):
    """One comment, as it was written."""

    id: UUID
    at: datetime
    author: str
    role: str
    text: str


# A retry with the same id (the same Idempotency-Key) changes nothing and answers what is stored.
ADD: Final = """
    INSERT INTO comment (tenant, member_id, id, at, author, role, body) VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (tenant, id) DO NOTHING RETURNING id
"""

ONE: Final = "SELECT * FROM comment WHERE tenant = $1 AND member_id = $2 AND id = $3"

LISTED: Final = both_ways("""
    SELECT * FROM comment
     WHERE tenant = $1 AND member_id = $2 AND ($3::timestamptz IS NULL OR (at, id) <after> ($3, $4::uuid))
     ORDER BY at <order>, id <order> LIMIT $5
""")


class CommentStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, tenant: str, member_id: str, comment: Comment) -> bool:
        """Append a comment on a member that is there; False when one of that id is stored already."""
        c = comment
        return await self._db.row(ADD, tenant, member_id, c.id, c.at, c.author, c.role, c.text) is not None

    async def one(self, tenant: str, member_id: str, comment_id: UUID) -> Comment | None:
        """One comment on that member; None when unknown."""
        row = await self._db.row(ONE, tenant, member_id, comment_id)
        return None if row is None else _comment(row)

    async def listed(
        self, tenant: str, member_id: str, *, after: tuple[datetime, UUID] | None, limit: int, descending: bool = True
    ) -> Sequence[Comment]:
        """One page of the comments on a member, by time."""
        rows = await self._db.fetch(LISTED[descending], tenant, member_id, *(after or (None, None)), limit)
        return [_comment(row) for row in rows]


def _comment(row: Row) -> Comment:
    return Comment(id=row["id"], at=row["at"], author=row["author"], role=row["role"], text=row["body"])
