"""The last pages of each member, rebuilt now and then; when it first entered a run; where its profile says that it lives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from accessguard.database import Database
from accessguard.members.latest import in_order

SHOWN: Final = 20
LOOKED_AT: Final = 200
"""Interactions of which the last pages are made: an hour and a half of a video that tells of itself every 30 s."""
SETTLES: Final = timedelta(seconds=30)
"""Activity of all workers is written by then: it is flushed every second."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A resource that a member opened, in which way, and when last."""

    at: datetime
    kind: str
    resource: str
    product_id: str | None
    session_id: str


class RunVisit(msgspec.Struct, frozen=True, kw_only=True):
    """When a member first entered one run of a resource."""

    resource: str
    run: str
    product_id: str | None
    first_at: datetime


class Pages(msgspec.Struct, frozen=True, kw_only=True):
    """The last pages of a member as of a time (None: not looked at yet), each resource once, the last opened first."""

    as_of: datetime | None
    items: tuple[Page, ...]


MARKED: Final = "(coalesce(k.at, '0001-01-01'::timestamptz), coalesce(k.member_id, ''))"

# The members who were active since the last time, of all tenants, each tenant from its own mark on.
REBUILD: Final = f"""
    WITH due AS MATERIALIZED (
        SELECT t.id AS tenant, m.id AS member_id, m.at
          FROM tenant t LEFT JOIN page_mark k ON k.tenant = t.id
         CROSS JOIN LATERAL (
               {in_order(tenant="t.id", place=MARKED, until="$1", most="$2")}) m
         LIMIT $2
    ), built AS (
        INSERT INTO member_page (tenant, member_id, pages)
        SELECT d.tenant, d.member_id, (
                SELECT coalesce(jsonb_agg(to_jsonb(p) ORDER BY p.at DESC), '[]')
                  FROM (SELECT DISTINCT ON (resource) at, kind, resource, product_id, session_id
                          FROM (SELECT at, kind, resource, product_id, session_id FROM activity
                                 WHERE tenant = d.tenant AND member_id = d.member_id ORDER BY at DESC, session_id LIMIT $3) a
                         WHERE resource IS NOT NULL
                         ORDER BY resource, at DESC) p)
          FROM due d
            ON CONFLICT (tenant, member_id) DO UPDATE SET pages = excluded.pages
    ), marked AS (
        INSERT INTO page_mark (tenant, at, member_id)
        SELECT DISTINCT ON (tenant) tenant, at, member_id FROM due ORDER BY tenant, at DESC, member_id DESC
            ON CONFLICT (tenant) DO UPDATE SET at = excluded.at, member_id = excluded.member_id
    )
    SELECT count(*) FROM due
"""  # noqa: S608 - all parts are constants

PAGES: Final = """
    SELECT (SELECT done_at FROM upkeep WHERE job = 'pages') AS done_at,
           (SELECT pages FROM member_page WHERE tenant = $1 AND member_id = $2) AS pages
"""

RUNS: Final = """
    SELECT resource, run, product_id, first_at FROM run_access
     WHERE tenant = $1 AND member_id = $2 ORDER BY first_at DESC, resource, run LIMIT $3
"""


class PageStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def rebuild(self, now: datetime, *, most: int) -> int:
        """Look again at what at most so many members opened last, of those who were active since; how many there were."""
        return int(await self._db.value(REBUILD, now - SETTLES, most, LOOKED_AT))

    async def last(self, tenant: str, member_id: str) -> Pages:
        """What a member opened last."""
        row = await self._db.row(PAGES, tenant, member_id)
        if row is None or row["done_at"] is None:
            return Pages(as_of=None, items=())
        found = () if row["pages"] is None else msgspec.json.decode(row["pages"], type=tuple[Page, ...])
        return Pages(as_of=row["done_at"] - SETTLES, items=found[:SHOWN])

    async def runs(self, tenant: str, member_id: str, *, limit: int) -> Sequence[RunVisit]:
        """The runs that a member entered, the last one first."""
        return [RunVisit(**dict(row)) for row in await self._db.fetch(RUNS, tenant, member_id, limit)]
