"""The outbox: what happened, written by triggers in the transaction in which it happened (migrations/triggers.py).

Readers stop before the oldest transaction that still runs. So the order is
final, a transaction that commits late is never passed by, and one that is
rolled back was never there. What is read waits for the longest transaction
under way, which is bounded by the 5 s of a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from accessguard.database import Database, Row
from accessguard.events.model import Event, EventKind, Position

KEPT: Final = timedelta(days=1)
"""How long a reader may be away and still go on where it was."""
PAGE: Final = 500
"""Events of one tenant that are read at once."""

AFTER: Final = """
    SELECT f.tenant, e.xact, e.id, e.at, e.kind, e.member_id, e.body
      FROM jsonb_to_recordset($1) AS f(tenant text, xact bigint, id bigint), LATERAL (
           SELECT * FROM event
            WHERE tenant = f.tenant AND (xact, id) > (f.xact, f.id) AND xact < txid_snapshot_xmin(txid_current_snapshot())
            ORDER BY xact, id LIMIT $2) e
     ORDER BY f.tenant, e.xact, e.id
"""

NOW: Final = "SELECT txid_snapshot_xmin(txid_current_snapshot()) - 1"

# What was taken away of a tenant is known by its last one; a place that is still to come is another database's.
RESUMES: Final = """
    SELECT $2::bigint < txid_snapshot_xmin(txid_current_snapshot())
       AND NOT EXISTS (SELECT FROM event_mark WHERE tenant = $1 AND (xact, id) > ($2::bigint, $3::bigint))
"""

EXPIRE: Final = """
    WITH old AS (
        SELECT tenant, xact, id FROM event WHERE at < $1 ORDER BY at LIMIT $2
    ), gone AS (
        DELETE FROM event e USING old o WHERE e.tenant = o.tenant AND e.xact = o.xact AND e.id = o.id
        RETURNING e.tenant, e.xact, e.id
    ), noted AS (
        INSERT INTO event_mark AS m (tenant, xact, id)
        SELECT DISTINCT ON (tenant) tenant, xact, id FROM gone ORDER BY tenant, xact DESC, id DESC
            ON CONFLICT (tenant) DO UPDATE SET xact = excluded.xact, id = excluded.id
         WHERE (m.xact, m.id) < (excluded.xact, excluded.id)
    )
    SELECT count(*) FROM gone
"""


class OutboxStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def now(self) -> Position:
        """The place after which everything is still to come."""
        return Position(xact=int(await self._db.value(NOW)), id=MOST_ID)

    async def resumes(self, tenant: str, after: Position) -> bool:
        """Whether all that came after this place is still there."""
        return bool(await self._db.value(RESUMES, tenant, after.xact, after.id))

    async def after(self, places: Mapping[str, Position], *, most: int = PAGE) -> Sequence[Event]:
        """The next events of each of these tenants, in their order; at most so many of each."""
        asked = [{"tenant": tenant, "xact": at.xact, "id": at.id} for tenant, at in places.items()]
        return [_event(row) for row in await self._db.fetch(AFTER, asked, most)]

    async def expire(self, now: datetime, most: int) -> int:
        """Delete at most so many events that are older than KEPT; how many."""
        return int(await self._db.value(EXPIRE, now - KEPT, most))


MOST_ID: Final = 10**18 - 1
"""Greater than any number that an event has."""


def _event(row: Row) -> Event:
    return Event(
        tenant=row["tenant"],
        position=Position(xact=row["xact"], id=row["id"]),
        at=row["at"],
        kind=EventKind(row["kind"]),
        member_id=row["member_id"],
        body=msgspec.json.decode(row["body"], type=dict[str, Any]),
    )
