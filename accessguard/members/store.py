"""Members in PostgreSQL: kept by the platform, read and annotated by operators."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from accessguard.database import Database, Row
from accessguard.errors import ErrorCode, GuardError
from accessguard.members.model import LastActivity, LatestViolation, Member, MemberFilter, MemberSort, Profile, Standing
from accessguard.members.phone import e164

ENSURE: Final = """
    INSERT INTO member (tenant, id, created_at) VALUES ($1, $2, $3) ON CONFLICT (tenant, id) DO NOTHING
"""

# A corrected e-mail keeps the old one as an alias that search still finds.
UPSERT: Final = """
    WITH before AS (
        SELECT email FROM member WHERE tenant = $1 AND id = $2
    ), kept AS (
        INSERT INTO member AS m (tenant, id, name, email, phone, tags, locale, time_zone, staff, created_at, phone_e164, country, city)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
            ON CONFLICT (tenant, id) DO UPDATE
           SET name = excluded.name, email = excluded.email, phone = excluded.phone, tags = excluded.tags,
               locale = excluded.locale, time_zone = excluded.time_zone, staff = excluded.staff, phone_e164 = excluded.phone_e164,
               country = excluded.country, city = excluded.city, generation = nextval('generation')
        RETURNING m.id
    )
    INSERT INTO member_alias (tenant, member_id, email, at)
    SELECT $1, $2, before.email, $10 FROM before, kept WHERE before.email IS DISTINCT FROM $4 AND before.email IS NOT NULL
        ON CONFLICT DO NOTHING
"""

# `standing` is 5 for a member who is active, else the place of its reason in STANDINGS. Where the platform tells of no
# enrolments at all, everybody is active.
COLUMNS: Final = """
    SELECT m.*,
           (SELECT count(*) FROM session s
             WHERE s.tenant = $1 AND s.member_id = m.id AND s.ended_at IS NULL AND s.expires_at > $3
               AND s.method <> 'impersonation') AS active_sessions,
           (SELECT count(*) FROM device d
             WHERE d.tenant = $1 AND d.member_id = m.id AND d.forgotten_at IS NULL) AS devices,
           (SELECT count(*) FROM violation v
             WHERE v.tenant = $1 AND v.member_id = m.id AND v.effect <> 'exempt'
               AND NOT EXISTS (SELECT FROM read_mark r
                                WHERE r.tenant = $1 AND r.violation_id = v.id AND r.reader = $2 AND r.hits >= v.hits)) AS unread,
           n.standing, w.id AS violation_id, w.session_id AS violation_session, w.code AS violation_code, w.last_at AS violation_at
      FROM member m
     CROSS JOIN LATERAL (
           SELECT coalesce(
                      max(CASE WHEN e.status = 'deactivated' THEN 2
                               WHEN e.ends_at <= $3 THEN 1
                               WHEN e.status = 'frozen' AND (e.reopens_at IS NULL OR e.reopens_at > $3) THEN 4
                               WHEN e.starts_at > $3 THEN 3
                               ELSE 5 END),
                      CASE WHEN EXISTS (SELECT FROM enrolment WHERE tenant = $1) THEN 0 ELSE 5 END) AS standing
             FROM enrolment e WHERE e.tenant = $1 AND e.member_id = m.id) n
      LEFT JOIN LATERAL (
           SELECT v.id, v.session_id, v.code, v.last_at FROM violation v
            WHERE v.tenant = $1 AND v.member_id = m.id AND v.effect <> 'exempt'
            ORDER BY v.last_at DESC, v.id LIMIT 1) w ON true
     WHERE m.tenant = $1
"""

ONE: Final = COLUMNS + " AND m.id = $4"

# `<columns>`, `<key>`, `<type>`, `<after>` and `<order>` are filled in below, from constants alone.
LISTED: Final = """
    WITH listed AS (<columns>
       AND ($4::text IS NULL OR m.id = $4 OR m.id ILIKE $5 OR m.name ILIKE $5 OR m.email ILIKE $5 OR m.phone ILIKE $5
            OR EXISTS (SELECT FROM member_alias a WHERE a.tenant = $1 AND a.member_id = m.id AND a.email ILIKE $5))
       AND ($6::text IS NULL OR $6 = ANY(m.tags))
       AND (NOT $7::boolean OR EXISTS (SELECT FROM violation v WHERE v.tenant = $1 AND v.member_id = m.id AND v.effect <> 'exempt'
                                 AND NOT EXISTS (SELECT FROM read_mark r WHERE r.tenant = $1 AND r.violation_id = v.id
                                                    AND r.reader = $2 AND r.hits >= v.hits)))
       AND (NOT $8::boolean OR EXISTS (SELECT FROM violation v WHERE v.tenant = $1 AND v.member_id = m.id
                                         AND v.effect IN ('denied', 'evicted')))
       AND ($9::text IS NULL OR ($9 = 'active') = (n.standing = 5))
       AND ($10::text IS NULL OR EXISTS (SELECT FROM enrolment e WHERE e.tenant = $1 AND e.member_id = m.id AND e.product_id = $10))
    )
    SELECT *, <key>::text AS sort_key FROM listed
     WHERE $11::text IS NULL OR (<key>, id) <after> ($11::<type>, $12)
     ORDER BY <key> <order>, id <order> LIMIT $13
"""

ACTIVE: Final = 5
STANDINGS: Final = {
    0: Standing.NEVER_ENROLLED,
    1: Standing.EXPIRED,
    2: Standing.DEACTIVATED,
    3: Standing.NOT_STARTED,
    4: Standing.FROZEN,
}

KEYS: Final = {
    MemberSort.LAST_ACTIVITY: ("coalesce(last_activity_at, '-infinity'::timestamptz)", "timestamptz"),
    MemberSort.FIRST_ACCESS: ("coalesce(first_access_at, '-infinity'::timestamptz)", "timestamptz"),
    MemberSort.LAST_ACCESS: ("coalesce(last_access_at, '-infinity'::timestamptz)", "timestamptz"),
    MemberSort.NAME: ("name", "text"),
    MemberSort.UNREAD: ("unread", "bigint"),
}


def _listing(sort: MemberSort, *, descending: bool) -> str:
    key, kind = KEYS[sort]
    after, order = ("<", "DESC") if descending else (">", "ASC")
    words = {"<columns>": COLUMNS, "<key>": key, "<type>": kind, "<after>": after, "<order>": order}
    statement = LISTED
    for word, text in words.items():
        statement = statement.replace(word, text)
    return statement


# Put together once, from constants alone, for each sort and direction.
LISTINGS: Final = {(sort, down): _listing(sort, descending=down) for sort in MemberSort for down in (False, True)}

FOR_UPDATE: Final = "SELECT 1 FROM member WHERE tenant = $1 AND id = $2 FOR UPDATE"

ANNOTATE: Final = """
    UPDATE member
       SET checks_enabled = $3, checks_disabled_until = $4, checks_reason = $5, note = $6, tags = $7,
           generation = nextval('generation')
     WHERE tenant = $1 AND id = $2
"""


EXISTS: Final = "SELECT 1 FROM member WHERE tenant = $1 AND id = $2"


PHONE: Final = "SELECT phone FROM member WHERE tenant = $1 AND id = $2"

# Numbers of members that were stored by a release before, a few at a time.
UNREAD_PHONES: Final = """
    SELECT m.tenant, m.id, m.phone, t.settings ->> 'country' AS country
      FROM (SELECT tenant, id, phone FROM member WHERE phone IS NOT NULL AND phone_e164 IS NULL
             ORDER BY tenant, id LIMIT $1) m
      JOIN tenant t ON t.id = m.tenant
"""

# Only where the number is still the one that was read.
READ_PHONES: Final = """
    UPDATE member m SET phone_e164 = r.phone_e164
      FROM jsonb_to_recordset($1) AS r(tenant text, id text, phone text, phone_e164 text)
     WHERE m.tenant = r.tenant AND m.id = r.id AND m.phone = r.phone AND m.phone_e164 IS NULL
"""


class MemberStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach; lists are read from `lists`, if given."""

    def __init__(self, db: Database, lists: Database | None = None) -> None:
        self._db = db
        self._lists = lists or db

    async def ensure(self, tenant: str, member_id: str, *, at: datetime) -> None:
        """Make the member if it is not there."""
        await self._db.row(ENSURE, tenant, member_id, at)

    async def upsert(self, tenant: str, member_id: str, profile: Profile, *, at: datetime) -> None:
        """Make the member, or replace what the platform knows of it."""
        p = profile
        await self._db.row(
            UPSERT,
            tenant,
            member_id,
            p.name,
            p.email,
            p.phone,
            list(p.tags),
            p.locale,
            p.time_zone,
            p.staff,
            at,
            p.phone_e164,
            p.country,
            p.city,
        )

    async def one(self, tenant: str, member_id: str, *, reader: str, now: datetime) -> Member | None:
        """A member as `reader` sees it; None when unknown."""
        row = await self._db.row(ONE, tenant, reader, now, member_id)
        return None if row is None else _member(row)

    async def exists(self, tenant: str, member_id: str) -> bool:
        """Whether the tenant has this member."""
        return await self._db.row(EXISTS, tenant, member_id) is not None

    async def phone(self, tenant: str, member_id: str) -> str | None:
        """The member's number as the platform wrote it; None when it has none, or is unknown."""
        found: str | None = await self._db.value(PHONE, tenant, member_id)
        return found

    async def read_phones(self, *, most: int) -> int:
        """Write at most so many numbers one way that are not yet; how many there were."""
        rows = await self._db.fetch(UNREAD_PHONES, most)
        read = [
            {
                "tenant": row["tenant"],
                "id": row["id"],
                "phone": row["phone"],
                "phone_e164": e164(row["phone"], row["country"]),
            }
            for row in rows
        ]
        if read:
            await self._db.row(READ_PHONES, read)
        return len(read)

    async def lock(self, tenant: str, member_id: str) -> bool:
        """Hold the member's row until the transaction ends; False when unknown."""
        return await self._db.row(FOR_UPDATE, tenant, member_id) is not None

    async def annotate(self, tenant: str, member: Member) -> None:
        """Store what operators write on a member: checks, note, tags."""
        m = member
        await self._db.row(
            ANNOTATE,
            tenant,
            m.member_id,
            m.checks_enabled,
            m.checks_disabled_until,
            m.checks_reason,
            m.note,
            list(m.tags),
        )

    async def listed(
        self,
        tenant: str,
        asked: MemberFilter,
        *,
        reader: str,
        now: datetime,
        sort: MemberSort,
        descending: bool,
        after: tuple[str, str] | None,
        limit: int,
    ) -> Sequence[tuple[Member, tuple[str, str]]]:
        """One page of members, each with the place (sort key, id) to go on after."""
        rows = await self._lists.fetch(
            LISTINGS[sort, descending],
            tenant,
            reader,
            now,
            asked.q,
            None if asked.q is None else f"%{_escaped(asked.q)}%",
            asked.tag,
            asked.unread,
            asked.restricted,
            asked.status,
            asked.product_id,
            *((_checked(sort, after[0]), after[1]) if after else (None, None)),
            limit,
        )
        return [(_member(row), (row["sort_key"], row["id"])) for row in rows]


def _checked(sort: MemberSort, key: str) -> str:
    """The key of a place in a list, if that sort can have it; PostgreSQL need not look at it where there are no rows."""
    try:
        if sort is MemberSort.UNREAD:
            int(key).to_bytes(8, signed=True)
        elif sort is not MemberSort.NAME and key != "-infinity":
            datetime.fromisoformat(key)
    except (ValueError, OverflowError):
        raise GuardError(ErrorCode.INVALID, "There is no such place in this list.") from None
    return key


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _member(row: Row) -> Member:
    return Member(
        member_id=row["id"],
        name=row["name"],
        email=row["email"],
        phone=row["phone"],
        tags=tuple(row["tags"]),
        locale=row["locale"],
        time_zone=row["time_zone"],
        staff=row["staff"],
        note=row["note"],
        status="active" if row["standing"] == ACTIVE else "inactive",
        status_reason=STANDINGS.get(row["standing"]),
        checks_enabled=row["checks_enabled"],
        checks_disabled_until=row["checks_disabled_until"],
        checks_reason=row["checks_reason"],
        first_access_at=row["first_access_at"],
        last_access_at=row["last_access_at"],
        last_activity=_activity(row),
        active_sessions=row["active_sessions"],
        devices=row["devices"],
        unread_violations=row["unread"],
        latest_violation=_violation(row),
        created_at=row["created_at"],
        country=row.get("country"),
        city=row.get("city"),
    )


def _activity(row: Row) -> LastActivity | None:
    if row["last_activity_at"] is None:
        return None
    return LastActivity(
        at=row["last_activity_at"], kind=row["last_activity_kind"], session_id=row["last_activity_session"]
    )


def _violation(row: Row) -> LatestViolation | None:
    if row["violation_id"] is None:
        return None
    return LatestViolation(
        id=row["violation_id"],
        session_id=row["violation_session"],
        code=row["violation_code"],
        at=row["violation_at"],
    )
