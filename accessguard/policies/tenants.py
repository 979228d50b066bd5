"""Tenants in PostgreSQL. Of one that was deleted a line stays, so that nobody's token makes it anew."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from accessguard.database import Database, Row


class TenantStatus(StrEnum):
    """Active; suspended: its tokens are answered as if it were not there; deleting: it is taken away."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETING = "deleting"


class TenantRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant; a token of its `parent` may act for it."""

    tenant: str
    name: str
    status: TenantStatus
    parent: str | None
    created_at: datetime


LISTED: Final = """
    SELECT id, name, CASE WHEN deleted_at IS NULL THEN status ELSE 'deleting' END AS status, parent, created_at FROM tenant
     WHERE emptied_at IS NULL AND ($1::text IS NULL OR id > $1) ORDER BY id LIMIT $2
"""
OF_FAMILY: Final = """
    WITH RECURSIVE family AS (
        SELECT id, 1 AS generation FROM tenant WHERE id = $3
         UNION ALL
        SELECT t.id, f.generation + 1 FROM family f JOIN tenant t ON t.parent = f.id WHERE f.generation < $4
    )
    SELECT id, name, CASE WHEN deleted_at IS NULL THEN status ELSE 'deleting' END AS status, parent, created_at FROM tenant
     WHERE id IN (SELECT id FROM family) AND emptied_at IS NULL AND ($1::text IS NULL OR id > $1) ORDER BY id LIMIT $2
"""
GENERATIONS: Final = 4
"""Of tenants, an agency's agency included."""
ONE: Final = """
    SELECT id, name, CASE WHEN deleted_at IS NULL THEN status ELSE 'deleting' END AS status, parent, created_at FROM tenant
     WHERE id = $1 AND emptied_at IS NULL
"""
CHANGE: Final = """
    UPDATE tenant SET name = $2, status = $3, parent = $4, generation = nextval('generation') WHERE id = $1 AND deleted_at IS NULL
"""
CLOSE: Final = """
    UPDATE tenant SET name = '', settings = '{}', parent = NULL, deleted_at = $2, generation = nextval('generation') WHERE id = $1
"""
CHILD: Final = "SELECT 1 FROM tenant WHERE parent = $1 AND emptied_at IS NULL LIMIT 1"
HEIGHT: Final = """
    WITH RECURSIVE below AS (
        SELECT $1::text AS id, 1 AS generation
         UNION ALL
        SELECT t.id, b.generation + 1 FROM below b JOIN tenant t ON t.parent = b.id AND t.emptied_at IS NULL WHERE b.generation < $2
    )
    SELECT max(generation) FROM below
"""
MEMBERS: Final = "SELECT count(*) FROM member WHERE tenant = $1"
SOME: Final = "SELECT id FROM member WHERE tenant = $1 LIMIT $2"
CLOSING: Final = (
    "SELECT id FROM tenant WHERE deleted_at IS NOT NULL AND emptied_at IS NULL ORDER BY deleted_at, id LIMIT 1"
)
EMPTIED: Final = "UPDATE tenant SET emptied_at = $2 WHERE id = $1"


class TenantStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def listed(self, *, after: str | None, limit: int) -> Sequence[TenantRecord]:
        """One page of tenants by id."""
        return [_record(row) for row in await self.db.fetch(LISTED, after, limit)]

    async def family(self, tenant: str, *, after: str | None, limit: int) -> Sequence[TenantRecord]:
        """The same of a tenant and all that are below it."""
        return [_record(row) for row in await self.db.fetch(OF_FAMILY, after, limit, tenant, GENERATIONS)]

    async def within(self, tenant: str, of: str) -> bool:
        """Whether a tenant is `of`, or below it; one that there is not is below nobody."""
        above: str | None = tenant
        for _ in range(GENERATIONS):
            if above == of or above is None:
                break
            found = await self.one(above)
            above = None if found is None else found.parent
        return above == of

    async def one(self, tenant: str) -> TenantRecord | None:
        """One tenant; None when unknown, or gone."""
        row = await self.db.row(ONE, tenant)
        return None if row is None else _record(row)

    async def change(self, record: TenantRecord) -> None:
        """Store name, status and parent."""
        await self.db.row(CHANGE, record.tenant, record.name, record.status, record.parent)

    async def close(self, tenant: str, *, at: datetime) -> None:
        """Let nobody in any more, for good."""
        await self.db.row(CLOSE, tenant, at)

    async def has_children(self, tenant: str) -> bool:
        """Whether another tenant is its child."""
        return await self.db.row(CHILD, tenant) is not None

    async def height(self, tenant: str, *, most: int) -> int:
        """How many generations there are from it downwards, itself included; `most` are looked at."""
        return int(await self.db.value(HEIGHT, tenant, most))

    async def members(self, tenant: str) -> int:
        """How many members it has."""
        return int(await self.db.value(MEMBERS, tenant))

    async def some_members(self, tenant: str, *, most: int) -> Sequence[str]:
        """Some of its members' ids."""
        return [row["id"] for row in await self.db.fetch(SOME, tenant, most)]

    async def closing(self) -> str | None:
        """The tenant that was deleted longest ago and of which something may be left."""
        found: str | None = await self.db.value(CLOSING)
        return found

    async def emptied(self, tenant: str, *, at: datetime) -> None:
        """Say that nothing is left of it."""
        await self.db.row(EMPTIED, tenant, at)


def _record(row: Row) -> TenantRecord:
    return TenantRecord(
        tenant=row["id"],
        name=row["name"],
        status=TenantStatus(row["status"]),
        parent=row["parent"],
        created_at=row["created_at"],
    )
