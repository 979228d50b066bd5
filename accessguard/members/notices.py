"""Which version of the notice on monitoring a member was shown, and when first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from accessguard.database import Database
from accessguard.members.model import Notice

SHOWN: Final = """
    INSERT INTO member_notice AS n (tenant, member_id, version, shown_at)
    SELECT $1, id, $3, $4 FROM member WHERE tenant = $1 AND id = $2
        ON CONFLICT (tenant, member_id, version) DO UPDATE SET shown_at = least(n.shown_at, excluded.shown_at)
    RETURNING version, shown_at
"""

OF_MEMBER: Final = """
    SELECT version, shown_at FROM member_notice
     WHERE tenant = $1 AND member_id = $2 ORDER BY shown_at DESC, version LIMIT 200
"""


class NoticeStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def shown(self, tenant: str, member_id: str, notice: Notice) -> Notice | None:
        """Keep that a notice was shown; the first time of a version stands. None for an unknown member."""
        row = await self._db.row(SHOWN, tenant, member_id, notice.version, notice.shown_at)
        return None if row is None else Notice(version=row["version"], shown_at=row["shown_at"])

    async def of_member(self, tenant: str, member_id: str) -> Sequence[Notice]:
        """Every notice that a member was shown, the newest first; 200 at most."""
        rows = await self._db.fetch(OF_MEMBER, tenant, member_id)
        return [Notice(version=row["version"], shown_at=row["shown_at"]) for row in rows]
