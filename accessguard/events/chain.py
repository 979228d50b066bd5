"""The chain of the audit log in PostgreSQL, which triggers write (migration 0019); here it is only read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database, Row
from accessguard.events.links import Head, Link, Words

BEFORE_ALL: Final = -(2**63)
"""A number before those of all records, also before those that no chain has (bigint)."""
FIRST_ID: Final = UUID(int=0)

NEXT: Final = """
    SELECT least((SELECT min(tenant) FROM audit WHERE tenant > $1), (SELECT min(tenant) FROM audit_chain WHERE tenant > $1),
                 (SELECT min(tenant) FROM audit_head WHERE tenant > $1))
"""
# A tenant that was deleted loses its log with all else, a portion at a time.
DELETED: Final = "SELECT EXISTS (SELECT FROM tenant WHERE id = $1 AND deleted_at IS NOT NULL)"
HEAD: Final = """
    SELECT tenant, seq, encode(hash, 'hex') AS hash FROM audit_chain WHERE tenant = $1 ORDER BY seq DESC LIMIT 1
"""
TOLD: Final = "SELECT tenant, seq, encode(hash, 'hex') AS hash FROM audit_head WHERE tenant = $1"

# Records in their order, each with its entry as it is at that moment, and whether the chain has others of that entry.
LINKS: Final = """
    SELECT c.tenant, c.seq, c.form, c.kind, c.at, c.entry_id::text, c.entries, encode(c.digest, 'hex') AS digest,
           encode(c.hash, 'hex') AS hash,
           NOT EXISTS (SELECT FROM audit_chain o WHERE o.tenant = c.tenant AND o.entry_id = c.entry_id AND o.seq < c.seq) AS first,
           NOT EXISTS (SELECT FROM audit_chain o WHERE o.tenant = c.tenant AND o.entry_id = c.entry_id AND o.seq > c.seq) AS last,
           a.salt::text, a.id::text, a.at AS entry_at, a.actor, a.role, a.action, a.target_kind, a.target_id,
           a.before::text AS before, a.after::text AS after, a.reason, a.member_id
      FROM audit_chain c LEFT JOIN audit a ON a.tenant = c.tenant AND a.id = c.entry_id
     WHERE c.tenant = $1 AND c.seq > $2
     ORDER BY c.seq LIMIT $3
"""

# Entries in the order of their ids, and whether the chain saw them being written.
ENTRIES: Final = """
    SELECT a.id, a.at,
           EXISTS (SELECT FROM audit_chain c WHERE c.tenant = a.tenant AND c.entry_id = a.id AND c.kind = 'written') AS seen
      FROM audit a WHERE a.tenant = $1 AND a.id >= $2 ORDER BY a.id LIMIT $3
"""

# Heads that are not those that were told last.
TELL: Final = """
    WITH moved AS MATERIALIZED (
        SELECT h.tenant, h.seq, h.hash
          FROM (SELECT id FROM tenant WHERE deleted_at IS NULL UNION SELECT '*') t
         CROSS JOIN LATERAL (SELECT * FROM audit_chain c WHERE c.tenant = t.id ORDER BY c.seq DESC LIMIT 1) h
          LEFT JOIN audit_head told ON told.tenant = t.id
         WHERE (told.seq, told.hash) IS DISTINCT FROM (h.seq, h.hash)
         LIMIT $2
    ), noted AS (
        INSERT INTO audit_head (tenant, seq, hash, at) SELECT tenant, seq, hash, $1 FROM moved
            ON CONFLICT (tenant) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, at = excluded.at
    )
    SELECT tenant, seq, encode(hash, 'hex') AS hash FROM moved ORDER BY tenant
"""

ON: Final = """
    SELECT count(*) FROM pg_trigger
     WHERE tgrelid = 'audit'::regclass AND tgname IN ('audit_salted', 'audit_chained') AND tgenabled IN ('O', 'A')
"""
TRIGGERS: Final = 2


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A record with its entry as it is (None: it is not there); `first` and `last` of those about that entry."""

    link: Link
    first: bool
    last: bool
    words: Words | None


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """An entry, and whether the chain saw it being written."""

    id: UUID
    at: datetime
    seen: bool


class ChainStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def next_tenant(self, after: str) -> str | None:
        """The tenant that comes next of those that have, or had, entries or a chain; "" comes before all."""
        found: str | None = await self._db.value(NEXT, after)
        return found

    async def deleted(self, tenant: str) -> bool:
        """Whether a tenant was deleted, and its log goes with it."""
        return bool(await self._db.value(DELETED, tenant))

    async def head(self, tenant: str) -> Head | None:
        """How far a chain goes; None where there is none."""
        return _head(await self._db.row(HEAD, tenant))

    async def told(self, tenant: str) -> Head | None:
        """The head that was told to the service's log last."""
        return _head(await self._db.row(TOLD, tenant))

    async def links(self, tenant: str, *, after: int = BEFORE_ALL, limit: int) -> Sequence[Seen]:
        """One page of records, by number."""
        return [_seen(row) for row in await self._db.fetch(LINKS, tenant, after, limit)]

    async def entries(self, tenant: str, *, since: UUID = FIRST_ID, limit: int) -> Sequence[Written]:
        """One page of entries by id, from that id on."""
        rows = await self._db.fetch(ENTRIES, tenant, since, limit)
        return [Written(id=row["id"], at=row["at"], seen=row["seen"]) for row in rows]

    async def tell(self, now: datetime, most: int) -> Sequence[Head]:
        """Heads that have moved since they were told last, at most so many, which are told now."""
        return [Head(**dict(row.items())) for row in await self._db.fetch(TELL, now, most)]

    async def on(self) -> bool:
        """Whether the triggers that write the chain are there and switched on."""
        return bool(await self._db.value(ON) == TRIGGERS)


def _head(row: Row | None) -> Head | None:
    return None if row is None else Head(**dict(row.items()))


def _seen(row: Row) -> Seen:
    words = None
    if row["id"] is not None:
        plain = {name: row[name] for name in Words.__struct_fields__ if name != "at"}
        words = Words(at=row["entry_at"], **plain)
    link = Link(**{name: row[name] for name in Link.__struct_fields__})
    return Seen(link=link, first=row["first"], last=row["last"], words=words)
