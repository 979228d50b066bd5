"""Members in PostgreSQL: kept by the platform, read and annotated by operators."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from accessguard.database import Database, Row
from accessguard.members.model import LastActivity, LatestViolation, Member, Profile, Standing
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
STANDING: Final = """
           SELECT coalesce(
                      max(CASE WHEN e.status = 'deactivated' THEN 2
                               WHEN e.ends_at <= $3 THEN 1
                               WHEN e.status = 'frozen' AND (e.reopens_at IS NULL OR e.reopens_at > $3) THEN 4
                               WHEN e.starts_at > $3 THEN 3
                               ELSE 5 END),
                      CASE WHEN (SELECT 1 FROM enrolment WHERE tenant = $1 ORDER BY member_id, product_id LIMIT 1) = 1
                           THEN 0 ELSE 5 END) AS standing,
                  min(greatest(e.starts_at, e.reopens_at)) FILTER (
                      WHERE e.status <> 'deactivated' AND (e.status <> 'frozen' OR e.reopens_at IS NOT NULL)
                        AND greatest(e.starts_at, e.reopens_at) > $3
                        AND (e.ends_at IS NULL OR e.ends_at > greatest(e.starts_at, e.reopens_at))) AS opens_at
             FROM enrolment e WHERE e.tenant = $1 AND e.member_id = m.id
"""
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
           r.at AS active_at, r.kind AS active_kind, r.session_id AS active_session,
           n.standing, n.opens_at, w.id AS violation_id, w.session_id AS violation_session, w.code AS violation_code, w.last_at AS violation_at
      FROM member m
     CROSS JOIN LATERAL (<standing>) n
      LEFT JOIN LATERAL (
           SELECT v.id, v.session_id, v.code, v.last_at FROM violation v
            WHERE v.tenant = $1 AND v.member_id = m.id AND v.effect <> 'exempt'
            ORDER BY v.last_at DESC, v.id LIMIT 1) w ON true
      LEFT JOIN member_activity r ON r.member_id = m.id AND r.tenant = $1
     WHERE m.tenant = $1
""".replace("<standing>", STANDING)

ONE: Final = COLUMNS + " AND m.id = $4"

# The same of many ($4), what each has counted for all of them at once: a probe for each member and table, of which `violation` is
# a dozen, takes four times as long. The latest case of each comes with the number of those that are unread. The ids are shown to
# the planner as an expression: it would weigh each of two hundred against the statistics of each partition, for tens of ms.
OF_PAGE: Final = """
    WITH asked AS MATERIALIZED (
        SELECT ARRAY(SELECT unnest($4::text[])) AS ids
    ), live AS MATERIALIZED (
        SELECT member_id, count(*) AS number FROM session
         WHERE tenant = $1 AND member_id = ANY((SELECT ids FROM asked)::text[]) AND ended_at IS NULL AND expires_at > $3 AND method <> 'impersonation'
         GROUP BY member_id
    ), own AS MATERIALIZED (
        SELECT member_id, count(*) AS number FROM device
         WHERE tenant = $1 AND member_id = ANY((SELECT ids FROM asked)::text[]) AND forgotten_at IS NULL GROUP BY member_id
    ), cases AS MATERIALIZED (
        SELECT v.member_id, v.id, v.session_id, v.code, v.last_at,
               NOT EXISTS (SELECT FROM read_mark r
                            WHERE r.tenant = $1 AND r.violation_id = v.id AND r.reader = $2 AND r.hits >= v.hits) AS unread
          FROM violation v WHERE v.tenant = $1 AND v.member_id = ANY((SELECT ids FROM asked)::text[]) AND v.effect <> 'exempt'
    ), latest AS MATERIALIZED (
        SELECT DISTINCT ON (member_id) *, count(*) FILTER (WHERE unread) OVER (PARTITION BY member_id) AS number
          FROM cases ORDER BY member_id, last_at DESC, id
    )
    SELECT m.*, coalesce(l.number, 0) AS active_sessions, coalesce(o.number, 0) AS devices, coalesce(w.number, 0) AS unread,
           r.at AS active_at, r.kind AS active_kind, r.session_id AS active_session,
           n.standing, n.opens_at, w.id AS violation_id, w.session_id AS violation_session, w.code AS violation_code, w.last_at AS violation_at
      FROM member m
     CROSS JOIN LATERAL (<standing>) n
      LEFT JOIN live l ON l.member_id = m.id
      LEFT JOIN own o ON o.member_id = m.id
      LEFT JOIN latest w ON w.member_id = m.id
      LEFT JOIN member_activity r ON r.member_id = m.id AND r.tenant = $1
     WHERE m.tenant = $1 AND m.id = ANY((SELECT ids FROM asked)::text[])
""".replace("<standing>", STANDING)

ACTIVE: Final = 5
STANDINGS: Final = {
    0: Standing.NEVER_ENROLLED,
    1: Standing.EXPIRED,
    2: Standing.DEACTIVATED,
    3: Standing.NOT_STARTED,
    4: Standing.FROZEN,
}

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
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

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
        return None if row is None else member_of(row)

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


def member_of(row: Row) -> Member:
    """A member from a row of COLUMNS."""
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
        opens_at=None if row["standing"] == ACTIVE else row["opens_at"],
        country=row.get("country"),
        city=row.get("city"),
    )


def _activity(row: Row) -> LastActivity | None:
    # The release before, while it runs beside this one, writes later ones into the row.
    if row["active_at"] is not None and (
        row["last_activity_at"] is None or row["active_at"] >= row["last_activity_at"]
    ):
        return LastActivity(at=row["active_at"], kind=row["active_kind"], session_id=row["active_session"])
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
