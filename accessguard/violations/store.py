"""Violations and read marks in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.database import Database, Row
from accessguard.listing import Listing, Short
from accessguard.slices import in_slices
from accessguard.violations import marks
from accessguard.violations.model import (
    QUIET,
    Found,
    Resolution,
    StudentWords,
    Summary,
    Violation,
    ViolationFilter,
)
from accessguard.violations.summaries import Summaries
from accessguard.violations.unread import Unread

# A hit that a worker still had in hand when its member was erased is nobody's; whoever is there stays until the end.
RECORD: Final = """
    WITH there AS MATERIALIZED (
        SELECT id FROM member
         WHERE tenant = $1 AND id IN (SELECT f ->> 'member_id' FROM jsonb_array_elements($2::jsonb) f)
         ORDER BY id FOR KEY SHARE
    ), found AS MATERIALIZED (
        SELECT coalesce(jsonb_agg(f), '[]') AS them FROM jsonb_array_elements($2::jsonb) f
         WHERE f ->> 'member_id' IN (SELECT id FROM there)
    )
    SELECT v.id, v.member_id, v.cause, v.subject FROM found, LATERAL record_violations($1, found.them, $3) v
"""

# By when upkeep takes a case away, at its next run; `365` is what `Retention` says for tenants that say nothing.
COLUMNS: Final = """
    SELECT v.*, host(v.ip) AS address,
           v.last_at + make_interval(days => coalesce((SELECT (settings #>> '{retention,violations_days}')::int FROM tenant WHERE id = $1), 365))
               AS retained_until,
           EXISTS (SELECT FROM read_mark r WHERE r.tenant = $1 AND r.violation_id = v.id AND r.reader = $2 AND r.hits >= v.hits)
               AS read,
           ARRAY(SELECT r.reader FROM read_mark r WHERE r.tenant = $1 AND r.violation_id = v.id AND r.hits >= v.hits
                  ORDER BY r.reader) AS read_by
      FROM violation v WHERE v.tenant = $1
"""

# A probe for each case, whatever the planner thinks: joined with all marks of the tenant, it would read them whole.
MARKED: Final = """
    coalesce((SELECT r.hits >= v.hits FROM read_mark r WHERE r.tenant = $1 AND r.violation_id = v.id AND r.reader = $2), false)
"""

FILTERS: Final = (
    ("member_id", "v.member_id = ?"),
    ("rule_id", "v.rule_id = ?"),
    ("code", "v.code = ?"),
    ("resolution", "v.resolution = ?"),
    ("since", "v.last_at >= ?::timestamptz"),
    ("until", "v.last_at < ?::timestamptz"),
)
PLACE: Final = "(v.last_at, v.id) <after> (?::timestamptz, ?::uuid)"
ORDER: Final = "v.last_at <order>, v.id <order>"
LISTED: Final = Listing(
    select=COLUMNS,
    fixed=2,
    filters=(
        *FILTERS,
        ("read", f"{MARKED} = ?"),
        ("down_to", "v.last_at >= ?::timestamptz"),
        ("up_to", "v.last_at <= ?::timestamptz"),
    ),
    place=PLACE,
    order=ORDER,
)

LOOKED_AT: Final = 10_000
"""Cases whose marks are looked at for one page, some 100 ms: where a reader has read all of them, it ends early and leads on."""
# The last one of them, from the index that the filters go by.
AS_FAR: Final = Listing(
    select="SELECT v.last_at FROM violation v WHERE v.tenant = $1",
    fixed=1,
    filters=FILTERS,
    place=PLACE,
    order=f"{ORDER} OFFSET {LOOKED_AT - 1}",
)
ENDS: Final = {True: UUID(int=0), False: UUID(int=2**128 - 1)}
"""The id before which no case of one moment comes, by the direction of a list."""

ONE: Final = COLUMNS + " AND v.id = $3"

RESOLVE: Final = """
    UPDATE violation SET resolution = $3, note = $4 WHERE tenant = $1 AND id = $2 RETURNING id
"""


WORDS: Final = "SELECT student_words FROM violation WHERE tenant = $1 AND id = $2 AND member_id = $3"

# One by one: whoever sends the same twice at once is not told twice that there was room.
WRITE: Final = """
    UPDATE violation SET student_words = student_words || $4::jsonb
     WHERE tenant = $1 AND id = $2 AND member_id = $3 AND jsonb_array_length(student_words) < $5 RETURNING id
"""
MOST_WORDS: Final = 3


class ViolationStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach; lists are read from `lists`, if given."""

    def __init__(self, db: Database, lists: Database | None = None) -> None:
        self._db = db
        self._lists = lists or db
        self._summaries = Summaries(self._lists)
        self._unread = Unread(db)

    async def record(self, tenant: str, found: Sequence[Found]) -> tuple[UUID | None, ...]:
        """Open or extend the cases of `found` (each case once); their ids, in that order, None where the member is gone."""
        rows = await self._db.fetch(RECORD, tenant, found, QUIET)
        ids: dict[tuple[str, str, str], UUID] = {
            (row["member_id"], row["cause"], row["subject"]): row["id"] for row in rows
        }
        return tuple(ids.get(each.case) for each in found)

    async def listed(
        self,
        tenant: str,
        asked: ViolationFilter,
        *,
        reader: str,
        after: tuple[datetime, UUID] | None,
        limit: int,
        descending: bool = True,
    ) -> Sequence[Violation]:
        """One page of cases as `reader` sees them, by their last hit; `Short` where it would take too long to find a full one."""
        filters = msgspec.structs.asdict(asked)
        end = None if asked.read is None else await self._end(tenant, filters, after, descending=descending)
        statement, values = LISTED.page(
            tenant,
            reader,
            filters=filters | {"down_to" if descending else "up_to": end},
            after=after,
            descending=descending,
            limit=limit,
        )
        rows = await self._lists.fetch(statement, *values)
        found = [_violation(row) async for row in in_slices(rows)]
        return found if end is None or len(found) == limit else Short(found, further=(end, ENDS[descending]))

    async def _end(
        self, tenant: str, filters: Mapping[str, object], after: tuple[datetime, UUID] | None, *, descending: bool
    ) -> datetime | None:
        """The last hit of the last case that is looked at for one page; None where all of them are."""
        statement, values = AS_FAR.page(tenant, filters=filters, after=after, descending=descending, limit=1)
        row = await self._lists.row(statement, *values)
        return None if row is None else row["last_at"]

    async def one(self, tenant: str, violation_id: UUID, *, reader: str) -> Violation | None:
        """One case as `reader` sees it; None when unknown."""
        row = await self._db.row(ONE, tenant, reader, violation_id)
        return None if row is None else _violation(row)

    async def mark_read(
        self,
        tenant: str,
        reader: str,
        *,
        at: datetime,
        ids: Sequence[UUID] | None,
        member_id: str | None,
        up_to: datetime | None,
    ) -> int:
        """Mark the selected cases read by `reader` with their present hits; how many this changed.

        Unknown and already read ones are left out, so a second call changes
        none. A later hit undoes the mark by itself.
        """
        try:
            if up_to is not None:
                return await marks.up_to(self._db, marks.READ_UP_TO, tenant, reader, at=at, until=up_to)
            return await marks.read(self._db, tenant, reader, ids=ids, member_id=member_id, at=at)
        finally:
            self._summaries.drop(tenant, reader)
            self._unread.moved(tenant, reader)

    async def mark_unread(
        self,
        tenant: str,
        reader: str,
        *,
        at: datetime,
        ids: Sequence[UUID] | None,
        member_id: str | None,
        up_to: datetime | None,
    ) -> int:
        """Take the marks of `reader` off the selected cases; how many this changed."""
        try:
            if up_to is not None:
                return await marks.up_to(self._db, marks.UNREAD_UP_TO, tenant, reader, at=at, until=up_to)
            return await marks.unread(self._db, tenant, reader, ids=ids, member_id=member_id)
        finally:
            self._summaries.drop(tenant, reader)
            self._unread.moved(tenant, reader)

    async def resolve(self, tenant: str, violation_id: UUID, resolution: Resolution, note: str) -> bool:
        """Store what the operators think of a case; False when unknown."""
        return await self._db.row(RESOLVE, tenant, violation_id, resolution, note) is not None

    async def student_words(self, tenant: str, member_id: str, violation_id: UUID) -> Sequence[StudentWords] | None:
        """What the student wrote about a case; None when it is not that student's."""
        row = await self._db.row(WORDS, tenant, violation_id, member_id)
        return None if row is None else _words(row)

    async def write(self, tenant: str, member_id: str, violation_id: UUID, words: StudentWords) -> bool:
        """Keep what a student wrote about a case of his own; False when it is not his, or he wrote three times."""
        return await self._db.row(WRITE, tenant, violation_id, member_id, [words], MOST_WORDS) is not None

    async def summary(self, tenant: str, reader: str) -> Summary:
        """Unread and open cases per code and per member, as `reader` sees them."""
        return await self._summaries.of(tenant, reader)

    async def summary_soon(self, tenant: str, reader: str) -> Summary | None:
        """The same for a page, which does not wait for it; None while it is counted."""
        return await self._summaries.soon(tenant, reader)

    async def unread(self, tenant: str, reader: str) -> int | None:
        """How many cases `reader` has not read; None where nobody knows it yet."""
        return await self._unread.soon(tenant, reader)

    def changed(self, tenant: str) -> None:
        """A case of the tenant has been resolved: summaries are counted again."""
        self._summaries.drop(tenant)


def _violation(row: Row) -> Violation:
    details: dict[str, Any] = msgspec.json.decode(row["details"])
    return Violation(
        id=row["id"],
        code=row["code"],
        rule_id=row["rule_id"],
        rule_version=row["rule_version"],
        mode=row["mode"],
        effect=row["effect"],
        member_id=row["member_id"],
        session_id=row["session_id"],
        device_id=row["device_id"],
        ip=row["address"],
        country=None,
        first_at=row["first_at"],
        last_at=row["last_at"],
        hits=row["hits"],
        details=details,
        read=row["read"],
        read_by=tuple(row["read_by"]),
        resolution=Resolution(row["resolution"]),
        note=row["note"],
        retained_until=row["retained_until"],
        student_words=_words(row),
    )


def _words(row: Row) -> tuple[StudentWords, ...]:
    return msgspec.json.decode(row["student_words"], type=tuple[StudentWords, ...])
