"""The last activity of members: in their rows once they rest, beside them in `member_activity` while it moves.

A member's row is in a dozen indexes, two of them by last activity, so that a
beat that moved it there would write them all. A beat moves one narrow row
instead (`FLUSH` in sessions/store.py), in the transaction that moves the
session; upkeep takes over who has been silent for `SILENT`. Whoever reads takes
the narrow row where there is one, so that it never shows where it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from accessguard.database import Database

SILENT: Final = timedelta(minutes=10)
"""After so long a member is taken for gone: twenty beats."""

OWN: Final = "coalesce(m.last_activity_at, '-infinity'::timestamptz)"
"""What the row of a member `m` says, as its indexes have it."""
# A probe for each member that is looked at, whatever the planner thinks.
RESTS: Final = "(SELECT 1 FROM member_activity r WHERE r.member_id = m.id AND r.tenant = m.tenant) IS NULL"

# Members of <tenant> in the order of last activity, the first <most> whose (time, id) is after <place>, up to <until>:
# of each of the two places as many, and of those the first.
IN_ORDER: Final = f"""
    SELECT id, at FROM (
        (SELECT r.member_id AS id, r.at FROM member_activity r
          WHERE r.tenant = <tenant> AND (r.at, r.member_id) > <place> AND r.at <= <until>
          ORDER BY r.at, r.member_id LIMIT <most>)
        UNION ALL
        (SELECT m.id, {OWN} AS at FROM member m
          WHERE m.tenant = <tenant> AND ({OWN}, m.id) > <place> AND {OWN} <= <until> AND {RESTS}
          ORDER BY {OWN}, m.id LIMIT <most>)) both_places
     ORDER BY at, id LIMIT <most>
"""  # noqa: S608 - all parts are constants


def in_order(*, tenant: str, place: str, until: str, most: str) -> str:
    """IN_ORDER with these parts, as SQL writes them; whoever selects from it gets `id` and `at`."""
    words = {"<tenant>": tenant, "<place>": place, "<until>": until, "<most>": most}
    statement = IN_ORDER
    for word, text in words.items():
        statement = statement.replace(word, text)
    return statement


# Members before what lies beside them, as at a flush, and those alone whom nobody else holds. Who became active again
# since is no longer silent when its row is looked at anew, and stays.
SETTLE: Final = """
    WITH idle AS MATERIALIZED (
        <idle>
    ), held AS MATERIALIZED (
        SELECT m.tenant, m.id
          FROM (SELECT * FROM idle ORDER BY tenant, member_id) i, LATERAL (
               SELECT tenant, id FROM member WHERE tenant = i.tenant AND id = i.member_id FOR NO KEY UPDATE <locked>) m
    ), gone AS (
        DELETE FROM member_activity a USING held h
         WHERE a.tenant = h.tenant AND a.member_id = h.id AND <silent> AND a.member_id = ANY(ARRAY(SELECT id FROM held))
        RETURNING a.*
    ), taken AS (
        UPDATE member m SET last_activity_at = g.at, last_activity_kind = g.kind, last_activity_session = g.session_id
          FROM gone g
         WHERE m.tenant = g.tenant AND m.id = g.member_id AND m.id = ANY(ARRAY(SELECT id FROM held))
           AND (m.last_activity_at IS NULL OR m.last_activity_at < g.at)
    )
    SELECT count(*) FROM gone
"""
OF_ALL: Final = (
    SETTLE.replace("<locked>", "SKIP LOCKED")
    .replace("<silent>", "a.at <= $1")
    .replace(
        "<idle>",
        """SELECT a.tenant, a.member_id
          FROM tenant t CROSS JOIN LATERAL (
               SELECT tenant, member_id FROM member_activity
                WHERE tenant = t.id AND at <= $1 ORDER BY at, member_id LIMIT $2) a
         LIMIT $2""",
    )
)
OF_SOME: Final = (
    SETTLE.replace("<locked>", "")
    .replace("<silent>", "true")
    .replace(
        "<idle>", "SELECT tenant, member_id FROM member_activity WHERE tenant = $1 AND member_id = ANY($2::text[])"
    )
)


class LatestStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def settle(self, now: datetime, most: int) -> int:
        """Take over, of all tenants, at most so many members who have been silent for SILENT; how many."""
        return int(await self._db.value(OF_ALL, now - SILENT, most))

    async def settle_some(self, tenant: str, ids: Sequence[str]) -> None:
        """Have the rows of these members say all there is, for whoever is about to change them."""
        await self._db.row(OF_SOME, tenant, list(ids))
