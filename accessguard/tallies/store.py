"""Counts of days in PostgreSQL: noted by whoever counts, added up by day, read by reports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, tzinfo
from typing import Final

from accessguard.database import Database, Row, both_ways
from accessguard.tallies.model import Counted, Tally, TallyKind, lines
from accessguard.words.moments import zone

# "AG" 9: any number works, as long as every worker takes the same.
LOCK: Final = 0x4147_0009

# Who adds up waits for who does so already; it takes milliseconds, and afterwards each note is in one place alone.
HELD: Final = "SELECT pg_advisory_xact_lock($1::bigint)"

TAKE: Final = """
    WITH gone AS (
        DELETE FROM tally_new WHERE ctid = ANY(ARRAY(SELECT ctid FROM tally_new <where> LIMIT $1)) RETURNING *
    )
    SELECT tenant, at, kind, one, two, three, four, sum(amount)::bigint AS amount, sum(fresh)::bigint AS fresh, count(*) AS notes
      FROM gone GROUP BY tenant, at, kind, one, two, three, four
"""
TAKE_ANY: Final = TAKE.replace("<where>", "")
TAKE_OF: Final = TAKE.replace("<where>", "WHERE tenant = $2")

ZONES: Final = "SELECT id, settings ->> 'time_zone' AS time_zone FROM tenant WHERE id = ANY($1) FOR KEY SHARE"

ADD: Final = """
    INSERT INTO day_tally AS d (tenant, kind, day, one, two, three, amount, fresh)
    SELECT r.* FROM jsonb_to_recordset($1)
        AS r(tenant text, kind text, day date, one text, two text, three text, amount bigint, fresh bigint)
        ON CONFLICT (tenant, kind, day, one, two, three) DO UPDATE
       SET amount = d.amount + excluded.amount, fresh = d.fresh + excluded.fresh
"""

LISTED: Final = both_ways("""
    SELECT day, one, two, three, amount, fresh FROM day_tally
     WHERE tenant = $1 AND kind = $2 AND day >= $3 AND day < $4
       AND ($5::date IS NULL OR (day, one, two, three) <after> ($5, $6, $7, $8))
     ORDER BY day <order>, one <order>, two <order>, three <order> LIMIT $9
""")


LINES: Final = "SELECT count(*) FROM day_tally WHERE tenant = $1 AND kind = $2 AND day >= $3 AND day < $4"


class TallyStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach; lists are read from `lists`, if given."""

    def __init__(self, db: Database, lists: Database | None = None) -> None:
        self._db = db
        self._lists = lists or db

    async def add_up(self, *, most: int, tenant: str | None = None) -> int:
        """Add at most so many notes (of all tenants, or of one) to their days, within a transaction; how many there were.

        A day is one of the time zone that the tenant has then, UTC when it has none that is known.
        """
        await self._db.row(HELD, LOCK)
        values = (most,) if tenant is None else (most, tenant)
        rows = await self._db.fetch(TAKE_ANY if tenant is None else TAKE_OF, *values)
        if rows:
            await self._add([_counted(row) for row in rows])
        return sum(row["notes"] for row in rows)

    async def listed(
        self,
        tenant: str,
        kind: TallyKind,
        *,
        since: date,
        until: date,
        after: tuple[date, str, str, str] | None,
        limit: int,
        descending: bool,
    ) -> Sequence[Tally]:
        """One page of counts, by day: from `since` on, before `until`."""
        rows = await self._lists.fetch(
            LISTED[descending], tenant, kind, since, until, *(after or (None, None, None, None)), limit
        )
        return [Tally(**dict(row)) for row in rows]

    async def count(self, tenant: str, kind: TallyKind, *, since: date, until: date) -> int:
        """How many counts there are in all."""
        return int(await self._lists.value(LINES, tenant, kind, since, until))

    async def _add(self, counted: Sequence[Counted]) -> None:
        tenants = sorted({each.tenant for each in counted})
        zones = {row["id"]: _zone(row) for row in await self._db.fetch(ZONES, tenants)}
        found = lines(counted, zones)
        added = [
            {
                "tenant": line.tenant,
                "kind": line.kind,
                "day": line.day,
                "one": line.one,
                "two": line.two,
                "three": line.three,
                "amount": amount,
                "fresh": fresh,
            }
            for line, (amount, fresh) in sorted(found.items(), key=lambda each: each[0].key)
        ]
        await self._db.row(ADD, added)


def _zone(row: Row) -> tzinfo:
    return zone(row["time_zone"] or "UTC") or UTC


def _counted(row: Row) -> Counted:
    plain = {name: row[name] for name in Counted.__struct_fields__ if name != "kind"}
    return Counted(kind=TallyKind(row["kind"]), **plain)
