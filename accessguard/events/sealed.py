"""Secrets of webhooks in PostgreSQL, as they are encrypted there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database, Row


class Locked(msgspec.Struct, frozen=True, kw_only=True):
    """The secret of one webhook as it is stored: `sealed`, or (None) as the release before left it, in `secret`."""

    tenant: str
    id: UUID
    secret: str
    sealed: str | None


# A key's id stands second in what it has sealed. What cannot be opened is not in the way of the rest.
LOCKED: Final = """
    SELECT tenant, id, secret, sealed FROM webhook
     WHERE tenant <> '' AND (sealed IS NULL OR split_part(sealed, '.', 2) <> $1) ORDER BY random() LIMIT $2
"""
RESEAL: Final = """
    WITH done AS (
        UPDATE webhook w SET sealed = n.sealed, secret = ''
          FROM jsonb_to_recordset($1) AS n(tenant text, id uuid, was text, sealed text)
         WHERE w.tenant = n.tenant AND w.id = n.id AND w.sealed IS NOT DISTINCT FROM n.was
        RETURNING 1
    )
    SELECT count(*) FROM done
"""


class SealedStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def locked(self, first: str, *, most: int) -> Sequence[Locked]:
        """Secrets that the key of the id `first` has not sealed, in no order."""
        return [locked(row) for row in await self._db.fetch(LOCKED, first, most)]

    async def reseal(self, sealed: Sequence[tuple[Locked, str]]) -> int:
        """Store secrets as they are sealed now, where they are still as they were; how many."""
        rows = [{"tenant": o.tenant, "id": o.id, "was": o.sealed, "sealed": new} for o, new in sealed]
        return int(await self._db.value(RESEAL, rows))


def locked(row: Row) -> Locked:
    """What a row of the table says of it."""
    return Locked(**{name: row[name] for name in Locked.__struct_fields__})
