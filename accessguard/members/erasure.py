"""Everything about a member, wherever it lies in PostgreSQL: taken away, or kept without a name.

Which tables there are is asked of the database, so that what a later release
adds goes as well, unless it is listed here as something to keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.members.latest import LatestStore
from accessguard.members.redaction import Names

MOST: Final = 1_000
"""Rows of one portion: some 20 ms, during which they are locked."""
MOST_SUBJECTS: Final = 200_000
"""Sessions, devices, attempts and cases of one member that are looked for in the audit log and among retries."""
AUDIT_PAGE: Final = 2_000

TABLES: Final = """
    SELECT r.relname::text AS name, bool_or(a.attname = 'member_id') AS of_member
      FROM pg_class r JOIN pg_attribute a ON a.attrelid = r.oid AND NOT a.attisdropped AND a.attname IN ('tenant', 'member_id')
     WHERE r.relnamespace = current_schema()::regnamespace AND r.relkind IN ('r', 'p') AND NOT r.relispartition
     GROUP BY r.relname HAVING bool_or(a.attname = 'tenant') ORDER BY r.relname
"""

ERASE: Final = "SELECT erase_rows($1, $2, $3, $4)"

NAMES: Final = """
    SELECT id AS name FROM member WHERE tenant = $1 AND id = $2
    UNION SELECT unnest(ARRAY[name, email, phone, phone_e164]) FROM member WHERE tenant = $1 AND id = $2
    UNION SELECT email FROM member_alias WHERE tenant = $1 AND member_id = $2
"""

# What the audit log may be about, by the kind of its target; and what retries lead to.
SUBJECTS: Final = """
    (SELECT 'session' AS kind, id FROM session WHERE tenant = $1 AND member_id = $2 LIMIT $3)
    UNION ALL (SELECT 'device', id::text FROM device WHERE tenant = $1 AND member_id = $2 LIMIT $3)
    UNION ALL (SELECT 'violation', id::text FROM violation WHERE tenant = $1 AND member_id = $2 LIMIT $3)
    UNION ALL (SELECT 'pass', id::text FROM pass WHERE tenant = $1 AND member_id = $2 LIMIT $3)
    UNION ALL (SELECT 'attempt', id::text FROM login_attempt WHERE tenant = $1 AND member_id = $2 LIMIT $3)
"""
OF_MEMBER: Final = ("member", "sessions", "enrolment", "pass", "notice", "comment")
"""Kinds of targets that may be named by the member's own id."""

RETRIES: Final = """
    WITH answers AS (DELETE FROM login_key WHERE tenant = $1 AND attempt_id = ANY($2::uuid[])),
         marks AS (DELETE FROM read_mark WHERE tenant = $1 AND violation_id = ANY($3::uuid[]))
    DELETE FROM idempotency WHERE tenant = $1
       AND (made_id = ANY($2) OR made_id = ANY($4::uuid[])
            OR EXISTS (SELECT FROM unnest($5::text[]) n WHERE position(lower(n) IN lower(key)) > 0))
"""

# A page of the log, the newest first: lines about the member, lines that name it, and the last one, to go on after.
AUDITED: Final = """
    WITH page AS MATERIALIZED (
        SELECT * FROM audit
         WHERE tenant = $1 AND at >= $2 AND ($3::timestamptz IS NULL OR (at <= $3 AND (at < $3 OR id > $4::uuid)))
         ORDER BY at DESC, id LIMIT $5
    ), seen AS (
        SELECT id, at, target_id, before, after, reason,
               target_kind || ':' || target_id = ANY($6::text[]) OR (to_jsonb(page) ->> 'member_id') IS NOT DISTINCT FROM $7::text AS about,
               EXISTS (SELECT FROM unnest($8::text[]) n
                        WHERE position(lower(n) IN lower(concat_ws(' ', target_id, reason, before::text, after::text))) > 0) AS naming,
               row_number() OVER (ORDER BY at, id DESC) = 1 AS last
          FROM page
    )
    SELECT * FROM seen WHERE about OR naming OR last ORDER BY at DESC, id
"""
REDACT: Final = """
    UPDATE audit SET target_id = $3, before = $4, after = $5, reason = $6 WHERE tenant = $1 AND id = $2
"""

JOBS: Final = "SELECT erase_jobs($1, $2)"

# What was prepared and never confirmed; a confirmation of it leads nowhere. What is going on is over in minutes, and each
# portion goes when it is done.
PREPARED: Final = """
    DELETE FROM job j WHERE j.tenant = $1 AND j.kind = 'bulk' AND j.state = 'waiting'
       AND EXISTS (SELECT FROM job_portion p, unnest($2::text[]) n
                    WHERE p.tenant = $1 AND p.job_id = j.id AND position(convert_to(n, 'UTF8') IN p.body) > 0)
"""

# Filters that an operator keeps may look for somebody.
PREFERRED: Final = """
    SELECT operator, name, value FROM preference
     WHERE tenant = $1 AND EXISTS (SELECT FROM unnest($2::text[]) n WHERE position(lower(n) IN lower(value::text)) > 0)
"""
PREFER: Final = "UPDATE preference SET value = $4 WHERE tenant = $1 AND operator = $2 AND name = $3"

# Why many are erased at once, without those who have been.
REWORD: Final = """
    UPDATE job SET asked = jsonb_set(asked, '{reason}', to_jsonb($3::text)) WHERE tenant = $1 AND id = $2
"""

# Two hundred members with long logs take minutes, and nobody is to think that they were left alone.
ALIVE: Final = "UPDATE job SET updated_at = greatest(updated_at, now()) WHERE tenant = $1 AND id = $2"

# Whose past has been counted goes on from the member before: a place in the same order, and nobody's name.
STEP_BACK: Final = """
    UPDATE tally_past SET member_id = coalesce((SELECT max(id) FROM member WHERE tenant = $1 AND id < $2), '')
     WHERE tenant = $1 AND member_id = $2
"""

# Notes for readers of cases, under ids that were merged into this one.
FORMER: Final = """
    DELETE FROM unread_moved n USING member_merge m
     WHERE m.tenant = $1 AND m.member_id = $2 AND n.tenant = $1 AND n.member_id = m.id
"""

GONE: Final = "DELETE FROM member WHERE tenant = $1 AND id = $2 RETURNING id"
NOTE: Final = "INSERT INTO erasure (tenant, id, at) VALUES ($1, $2, $3)"
EXPIRE: Final = """
    WITH gone AS (
        DELETE FROM erasure WHERE ctid = ANY(ARRAY(SELECT ctid FROM erasure WHERE at < $1 LIMIT $2)) RETURNING 1
    )
    SELECT count(*) FROM gone
"""
KEPT_NOTES: Final = timedelta(days=1)
SAMPLE_ANEW: Final = "SELECT sample_anew()"
SAMPLING_S: Final = 60.0
"""How long one table may take: 30,000 of its rows are read, wherever they lie (PostgreSQL, `default_statistics_target` 100)."""
OPEN: Final = "SELECT id FROM session WHERE tenant = $1 AND member_id = $2 AND ended_at IS NULL LIMIT 10000"
TRACES: Final = """
    SELECT EXISTS (SELECT FROM login_attempt WHERE tenant = $1 AND member_id = $2)
        OR EXISTS (SELECT FROM violation WHERE tenant = $1 AND member_id = $2)
        OR EXISTS (SELECT FROM activity WHERE tenant = $1 AND member_id = $2)
"""
# What it has not applied yet may name anybody, and would bring them back. The lock waits for the portion that is being
# applied, which holds its job's row: later ones know of this (`guard/intake.py`).
KEEP_OUT: Final = """
    WITH taking AS MATERIALIZED (
        SELECT id FROM job WHERE tenant = $1 AND kind = 'import' AND state IN ('waiting', 'running') AND expires_at > $3
         ORDER BY id FOR SHARE
    )
    INSERT INTO import_erased (tenant, job_id, subject) SELECT $1, id, $2 FROM taking ON CONFLICT DO NOTHING
"""
THERE: Final = "SELECT 1 FROM member WHERE tenant = $1 AND id = $2"

# Nobody in particular, as many times as there were members; first and last access are counted by reports.
PSEUDONYM: Final = """
    INSERT INTO member AS m (tenant, id, created_at, first_access_at, last_access_at, last_activity_at, last_activity_kind, staff)
    SELECT tenant, $3, created_at, first_access_at, last_access_at, last_activity_at, last_activity_kind, staff
      FROM member WHERE tenant = $1 AND id = $2
        ON CONFLICT (tenant, id) DO UPDATE
       SET last_access_at = excluded.last_access_at, last_activity_at = excluded.last_activity_at,
           last_activity_kind = excluded.last_activity_kind
"""

# What is kept without a name. $3 is nobody's new id, $4 a salt that is then forgotten: what belonged together still does,
# and leads nowhere else. Whatever is not here is taken away.
KEPT: Final[Mapping[str, str]] = {
    "login_attempt": """
        UPDATE login_attempt
           SET member_id = $3, id = md5($4 || id)::uuid, identifier_hash = NULL, failure_reason = NULL, ip = NULL, user_agent = NULL,
               host = NULL, app = NULL, asn = NULL, city = NULL, device_id = md5($4 || device_id)::uuid,
               session_id = md5($4 || session_id), counted = false
    """,
    "activity": """
        UPDATE activity SET member_id = $3, session_id = md5($4 || session_id), resource = NULL, ip = NULL
    """,
    "violation": """
        UPDATE violation
           SET member_id = $3, id = md5($4 || id)::uuid, session_id = md5($4 || session_id), device_id = md5($4 || device_id)::uuid,
               ip = NULL, details = '{}', note = '', student_words = '[]'
    """,
    "device": """
        UPDATE device
           SET member_id = $3, id = md5($4 || id)::uuid, browser_id = md5($4 || browser_id)::uuid, secret_hash = '', previous_hash = NULL,
               older_hashes = NULL, secret_seed = NULL, name = NULL, access_reason = NULL, access_by = NULL, last_ip = NULL,
               model = NULL, screen = NULL, merged_into = md5($4 || merged_into)::uuid, merged_ids = '{}'
    """,
    "enrolment": "UPDATE enrolment SET member_id = $3",
    "sharing_day": "UPDATE sharing_day SET member_id = $3",
    "product_access": "UPDATE product_access SET member_id = $3",
}
OF_THESE: Final = """
     WHERE tenant = $1 AND member_id = $2 AND ctid = ANY(ARRAY(SELECT ctid FROM <table> WHERE tenant = $1 AND member_id = $2 LIMIT $5))
    RETURNING 1
"""
# Of whoever reads cases: these are somebody else's now.
NOTED: Final = """, noted AS (
        INSERT INTO unread_moved AS m (tenant, member_id) SELECT $1, $3 WHERE EXISTS (SELECT FROM moved)
            ON CONFLICT (tenant, member_id, reader) DO UPDATE SET moved = excluded.moved, at = excluded.at
    )"""


def _kept(table: str) -> str:
    salted = "$4" in KEPT[table]
    moved = KEPT[table] + OF_THESE.replace("<table>", table)
    noted = NOTED if table == "violation" else ""
    counted = f"WITH moved AS ({moved}) {noted} SELECT count(*) FROM moved"  # noqa: S608 - all parts are constants
    return counted if salted else counted + " WHERE $4::text IS NOT NULL"


# Put together once, from constants alone.
STATEMENTS: Final = {table: _kept(table) for table in KEPT}


class Pseudonym(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody in particular: a new id, and a salt that is kept nowhere."""

    id: str
    salt: str


class Subjects(msgspec.Struct, frozen=True, kw_only=True):
    """What belongs to one member, as far as other tables know it by its ids."""

    attempts: tuple[UUID, ...]
    violations: tuple[UUID, ...]
    passes: tuple[UUID, ...]
    targets: tuple[str, ...]


class ErasureStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def tables(self) -> Mapping[str, bool]:
        """Every table with rows of a tenant, and whether they are of members."""
        return {row["name"]: row["of_member"] for row in await self._db.fetch(TABLES)}

    async def portion(self, table: str, tenant: str, member_id: str | None, *, most: int = MOST) -> int:
        """Take away at most so many rows of a member, or (None) of a whole tenant; how many."""
        return int(await self._db.value(ERASE, table, tenant, member_id, most))

    async def keep_portion(
        self, table: str, tenant: str, member_id: str, nobody: Pseudonym, *, most: int = MOST
    ) -> int:
        """Make at most so many rows nobody's; how many."""
        return int(await self._db.value(STATEMENTS[table], tenant, member_id, nobody.id, nobody.salt, most))

    async def names(self, tenant: str, member_id: str) -> Names:
        """What the member is called."""
        rows = await self._db.fetch(NAMES, tenant, member_id)
        return Names([member_id, *(row["name"] for row in rows)])

    async def subjects(self, tenant: str, member_id: str) -> Subjects:
        """What belongs to it, 200,000 of a kind at most."""
        found: dict[str, list[str]] = {}
        for row in await self._db.fetch(SUBJECTS, tenant, member_id, MOST_SUBJECTS):
            found.setdefault(row["kind"], []).append(row["id"])
        named = [f"{kind}:{each}" for kind, ids in found.items() if kind != "attempt" for each in ids]
        return Subjects(
            attempts=tuple(map(UUID, found.get("attempt", ()))),
            violations=tuple(map(UUID, found.get("violation", ()))),
            passes=tuple(map(UUID, found.get("pass", ()))),
            targets=(*(f"{kind}:{member_id}" for kind in OF_MEMBER), *named),
        )

    async def forget_retries(self, tenant: str, of: Subjects, names: Names) -> None:
        """Answers kept for whoever asks again, and read marks."""
        await self._db.row(RETRIES, tenant, of.attempts, of.violations, of.passes, names.written)

    async def redact(
        self, tenant: str, member_id: str, of: Subjects, names: Names, *, as_: str, since: datetime
    ) -> int:
        """Take a member out of the audit log from `since` on; how many lines were changed.

        Of lines about it stays who did what and when, with `as_` as the target;
        of others everything but its names.
        """
        changed, at, entry_id, more = 0, None, None, True
        while more:
            rows = await self._db.fetch(
                AUDITED, tenant, since, at, entry_id, AUDIT_PAGE, of.targets, member_id, names.written
            )
            for row in rows:
                if row["about"] or row["naming"]:
                    await self._db.row(REDACT, tenant, row["id"], *_redacted(row, names, as_))
                    changed += 1
            more = bool(rows)
            if rows:
                at, entry_id = rows[-1]["at"], rows[-1]["id"]
        return changed

    async def forget_jobs(self, tenant: str, names: Names) -> int:
        """Results, and what waits to be confirmed, that name the member; how many jobs with a result went."""
        await self._db.row(PREPARED, tenant, names.quoted)
        return int(await self._db.value(JOBS, tenant, names.quoted))

    async def forget_preferences(self, tenant: str, names: Names) -> None:
        """Take the member's names out of what operators keep."""
        for row in await self._db.fetch(PREFERRED, tenant, names.quoted):
            value = names.out_of(msgspec.json.decode(row["value"]))
            await self._db.row(PREFER, tenant, row["operator"], row["name"], value)

    async def reword(self, tenant: str, job_id: UUID, reason: str) -> None:
        """Have a job say another reason for what is left of it, and in the audit log."""
        await self._db.row(REWORD, tenant, job_id, reason)

    async def alive(self, tenant: str, job_id: UUID) -> None:
        """Say that somebody works on a job."""
        await self._db.row(ALIVE, tenant, job_id)

    async def step_back(self, tenant: str, member_id: str) -> None:
        """Have nothing stand at the member's place in the order of ids."""
        await self._db.row(STEP_BACK, tenant, member_id)

    async def forget_former(self, tenant: str, member_id: str) -> None:
        """Take away what still names the member by an id that it had before."""
        await self._db.row(FORMER, tenant, member_id)

    async def stand_in(self, tenant: str, member_id: str, nobody: Pseudonym) -> None:
        """Make, or bring up to date, whoever the counts belong to from now on."""
        await LatestStore(self._db).settle_some(tenant, (member_id,))
        await self._db.row(PSEUDONYM, tenant, member_id, nobody.id)

    async def open_sessions(self, tenant: str, member_id: str) -> Sequence[str]:
        """Ids of open sessions, 10,000 at most."""
        return [row["id"] for row in await self._db.fetch(OPEN, tenant, member_id)]

    async def gone(self, tenant: str, member_id: str) -> bool:
        """Take away the member itself, and what refers to it; False when it was not there."""
        return await self._db.row(GONE, tenant, member_id) is not None

    async def there(self, tenant: str, member_id: str) -> bool:
        """Whether there is such a member (again)."""
        return await self._db.row(THERE, tenant, member_id) is not None

    async def keep_out(self, tenant: str, subject: str, *, now: datetime) -> None:
        """Have files of members that are still being taken in pass over whoever this is (`guard/subjects.py`)."""
        await self._db.row(KEEP_OUT, tenant, subject, now)

    async def traces(self, tenant: str, member_id: str) -> bool:
        """Whether there is something of a member that is not there (a failed login of somebody unknown)."""
        return bool(await self._db.value(TRACES, tenant, member_id))

    async def note(self, tenant: str, erasure_id: UUID, *, at: datetime) -> None:
        """Have workers that miss the push find out that somebody was erased."""
        await self._db.row(NOTE, tenant, erasure_id, at)

    async def expire(self, now: datetime, most: int) -> int:
        """Delete at most so many notes that every worker has long read; how many."""
        return int(await self._db.value(EXPIRE, now - KEPT_NOTES, most))

    async def sample_anew(self) -> bool:
        """Have one table that holds samples of values from before the newest erasure draw them anew; False when there is none."""
        return await self._db.value(SAMPLE_ANEW, timeout_s=SAMPLING_S) is not None


def _redacted(row: Any, names: Names, as_: str) -> tuple[str, Any, Any, str | None]:
    """Target, before, after and reason of a line as they may stay."""
    if row["about"]:
        return as_, None, None, None
    texts = [
        None if row[name] is None else names.out_of(msgspec.json.decode(row[name])) for name in ("before", "after")
    ]
    target = as_ if names.is_one(row["target_id"]) else row["target_id"]
    return target, texts[0], texts[1], names.out_of(row["reason"])
