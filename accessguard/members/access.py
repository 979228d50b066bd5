"""First and last access by member and product: outlives whatever it was seen by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from accessguard.database import Database


class AccessLine(msgspec.Struct, frozen=True, kw_only=True):
    """One member and product (None: of a member without any); None for what never was, or was not told.

    The first two times are of that product, the other two of the member
    altogether: logins, which are about no product, move those alone.
    """

    member_id: str
    name: str
    email: str | None
    product_id: str | None
    first_access_at: datetime | None
    last_access_at: datetime | None
    purchased_at: datetime | None
    member_first_access_at: datetime | None
    member_last_access_at: datetime | None

    @property
    def place(self) -> tuple[str, str]:
        """Where it stands in the report: by member, then by product."""
        return (self.member_id, self.product_id or "")


COLUMNS: Final = """
    SELECT w.id AS member_id, w.name, w.email, nullif(w.product_id, '') AS product_id, a.first_at AS first_access_at,
           a.last_at AS last_access_at, e.purchased_at, w.first_access_at AS member_first_access_at,
           w.last_access_at AS member_last_access_at
"""
JOINED: Final = """
      LEFT JOIN product_access a ON a.tenant = $1 AND a.member_id = w.id AND a.product_id = w.product_id
      LEFT JOIN enrolment e ON e.tenant = $1 AND e.member_id = w.id AND e.product_id = w.product_id
     ORDER BY w.id, w.product_id
"""

# A page of members is found first, then what each has: of those, the first one may have been shown in part. A member
# without a product has one line.
ALL: Final = (
    COLUMNS  # noqa: S608 - all parts are constants
    + """
      FROM (SELECT m.id, m.name, m.email, m.first_access_at, m.last_access_at, p.product_id
              FROM (SELECT * FROM member WHERE tenant = $1 AND id >= $2 ORDER BY id LIMIT $4 + 1) m
             CROSS JOIN LATERAL (
                   SELECT product_id FROM enrolment WHERE tenant = $1 AND member_id = m.id
                   UNION SELECT product_id FROM product_access WHERE tenant = $1 AND member_id = m.id
                   UNION SELECT '' WHERE NOT EXISTS (SELECT FROM enrolment WHERE tenant = $1 AND member_id = m.id)
                                     AND NOT EXISTS (SELECT FROM product_access WHERE tenant = $1 AND member_id = m.id)) p
             WHERE ($3::text IS NULL OR (m.id, p.product_id) > ($2, $3)) AND ($5::text IS NULL OR p.product_id = $5)
             ORDER BY m.id, p.product_id LIMIT $4) w
"""
    + JOINED
)

# The cursor's member is the one that is asked for.
OF_MEMBER: Final = ALL.replace("id >= $2", "id = $2")

OF_PRODUCT: Final = (
    COLUMNS  # noqa: S608 - all parts are constants
    + """
      FROM (SELECT m.id, m.name, m.email, m.first_access_at, m.last_access_at, $4::text AS product_id
              FROM (SELECT member_id FROM (
                       (SELECT member_id FROM enrolment WHERE tenant = $1 AND product_id = $4 AND member_id > $2
                         ORDER BY member_id LIMIT $3)
                        UNION
                       (SELECT member_id FROM product_access WHERE tenant = $1 AND product_id = $4 AND member_id > $2
                         ORDER BY member_id LIMIT $3)) u
                     ORDER BY member_id LIMIT $3) k
              JOIN member m ON m.tenant = $1 AND m.id = k.member_id) w
"""
    + JOINED
)


# How many lines there are: enrolments, what was opened without one, members without any.
LINES: Final = """
    SELECT (SELECT count(*) FROM enrolment e
             WHERE e.tenant = $1 AND ($2::text IS NULL OR e.product_id = $2) AND ($3::text IS NULL OR e.member_id = $3))
         + (SELECT count(*) FROM product_access a
             WHERE a.tenant = $1 AND ($2::text IS NULL OR a.product_id = $2) AND ($3::text IS NULL OR a.member_id = $3)
               AND NOT EXISTS (SELECT FROM enrolment e
                                WHERE e.tenant = $1 AND e.member_id = a.member_id AND e.product_id = a.product_id))
         + (SELECT count(*) FROM member m
             WHERE m.tenant = $1 AND $2::text IS NULL AND ($3::text IS NULL OR m.id = $3)
               AND NOT EXISTS (SELECT FROM enrolment e WHERE e.tenant = $1 AND e.member_id = m.id)
               AND NOT EXISTS (SELECT FROM product_access a WHERE a.tenant = $1 AND a.member_id = m.id))
"""
COUNTING_S: Final = 60.0
"""Of a million members: some seconds, in which nobody waits but a job."""


class AccessStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def listed(
        self, tenant: str, *, product_id: str | None, member_id: str | None, after: tuple[str, str] | None, limit: int
    ) -> Sequence[AccessLine]:
        """One page, by member and product; of one product or of one member where asked for."""
        if member_id is not None:
            product = after[1] if after else None
            rows = await self._db.fetch(OF_MEMBER, tenant, member_id, product, limit, product_id)
        elif product_id is not None:
            rows = await self._db.fetch(OF_PRODUCT, tenant, after[0] if after else "", limit, product_id)
        else:
            rows = await self._db.fetch(ALL, tenant, *(after or ("", None)), limit, None)
        return [AccessLine(**dict(row)) for row in rows]

    async def count(self, tenant: str, *, product_id: str | None, member_id: str | None) -> int:
        """How many lines the whole report has now; seconds where there are a million members."""
        return int(await self._db.value(LINES, tenant, product_id, member_id, timeout_s=COUNTING_S))
