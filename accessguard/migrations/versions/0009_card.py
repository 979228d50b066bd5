"""What outlives the raw rows: access by product and run, tallies by day; and what operators write: comments, preferences."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

STATEMENTS = (
    # When a member used a product first and last; moved by the flush of beats, and by nothing that retention does. No
    # index on a time, so that a beat updates its row in place.
    """
    CREATE TABLE product_access (
        tenant      text NOT NULL,
        member_id   text NOT NULL,
        product_id  text NOT NULL,
        first_at    timestamptz NOT NULL,
        last_at     timestamptz NOT NULL,
        PRIMARY KEY (tenant, member_id, product_id),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX product_access_by_product ON product_access (tenant, product_id, member_id)",
    # When a member first entered one run of a resource, such as one date of a webinar; written once.
    """
    CREATE TABLE run_access (
        tenant      text NOT NULL,
        member_id   text NOT NULL,
        resource    text NOT NULL,
        run         text NOT NULL,
        product_id  text,
        first_at    timestamptz NOT NULL,
        PRIMARY KEY (tenant, member_id, resource, run),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    # The last pages of a member, rebuilt every few minutes for whoever was active; and how far that has come: everybody up
    # to `member_id` of those last active at `at`.
    """
    CREATE TABLE member_page (
        tenant     text NOT NULL,
        member_id  text NOT NULL,
        pages      jsonb NOT NULL,
        PRIMARY KEY (tenant, member_id),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE page_mark (
        tenant     text PRIMARY KEY REFERENCES tenant ON DELETE CASCADE,
        at         timestamptz NOT NULL,
        member_id  text NOT NULL
    )
    """,
    # Only ever added to by those who count, so that nobody waits for anybody's line; upkeep adds up and takes away. Nothing
    # personal. `at` is the quarter of an hour, of which the days of every time zone are made. No foreign key: each new row
    # would lock the tenant's.
    """
    CREATE TABLE tally_new (
        tenant  text NOT NULL,
        at      timestamptz NOT NULL,
        kind    text NOT NULL,
        one     text NOT NULL,
        two     text NOT NULL DEFAULT '',
        three   text NOT NULL DEFAULT '',
        four    text NOT NULL DEFAULT '',
        amount  bigint NOT NULL,
        fresh   bigint NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX tally_new_by_tenant ON tally_new (tenant)",
    # By day of the tenant's time zone, kept for ever: some hundred rows a day at most.
    """
    CREATE TABLE day_tally (
        tenant  text NOT NULL REFERENCES tenant ON DELETE CASCADE,
        kind    text NOT NULL,
        day     date NOT NULL,
        one     text NOT NULL,
        two     text NOT NULL,
        three   text NOT NULL,
        amount  bigint NOT NULL,
        fresh   bigint NOT NULL,
        PRIMARY KEY (tenant, kind, day, one, two, three)
    )
    """,
    # Tenants with a past that nobody has counted yet: what was recorded before `before`, of members after `member_id`.
    """
    CREATE TABLE tally_past (
        tenant     text PRIMARY KEY REFERENCES tenant ON DELETE CASCADE,
        before     timestamptz NOT NULL,
        member_id  text NOT NULL DEFAULT ''
    )
    """,
    "INSERT INTO tally_past (tenant, before) SELECT id, now() FROM tenant",
    # Neither edited nor deleted, but with the member.
    """
    CREATE TABLE comment (
        tenant     text NOT NULL,
        member_id  text NOT NULL,
        id         uuid NOT NULL,
        at         timestamptz NOT NULL,
        author     text NOT NULL,
        role       text NOT NULL,
        body       text NOT NULL,
        PRIMARY KEY (tenant, id),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    "CREATE INDEX comment_by_member ON comment (tenant, member_id, at DESC, id)",
    """
    CREATE TABLE preference (
        tenant      text NOT NULL REFERENCES tenant ON DELETE CASCADE,
        operator    text NOT NULL,
        name        text NOT NULL,
        value       jsonb NOT NULL,
        updated_at  timestamptz NOT NULL,
        PRIMARY KEY (tenant, operator, name)
    )
    """,
    # What a job leaves to be fetched; it goes with its job.
    """
    CREATE TABLE job_part (
        tenant  text NOT NULL,
        job_id  uuid NOT NULL,
        number  integer NOT NULL,
        body    bytea NOT NULL,
        PRIMARY KEY (tenant, job_id, number),
        FOREIGN KEY (tenant, job_id) REFERENCES job ON DELETE CASCADE
    )
    """,
    # Where the profile says that the member lives.
    "ALTER TABLE member ADD COLUMN country text, ADD COLUMN city text",
    # Whom an act was about, where its target is a device, a session or a case of somebody's.
    "ALTER TABLE audit ADD COLUMN member_id text",
    # As it was, and tallied by rule.
    """
    CREATE OR REPLACE FUNCTION record_violations(of_tenant text, found jsonb, quiet interval)
    RETURNS TABLE (id uuid, member_id text, cause text, subject text)
    LANGUAGE sql VOLATILE AS $$
        WITH asked AS (
            SELECT * FROM jsonb_to_recordset(found) AS v(
                id uuid, cause text, subject text, code text, rule_id uuid, rule_version integer, mode text, effect text,
                member_id text, session_id text, device_id uuid, ip text, at timestamptz, hits bigint, details jsonb)
             ORDER BY v.member_id, v.cause, v.subject
        ), kept AS (
            INSERT INTO violation_case AS c (tenant, member_id, cause, subject, violation_id, first_at, last_at)
            SELECT of_tenant, a.member_id, a.cause, a.subject, a.id, a.at, a.at FROM asked a
                ON CONFLICT (tenant, member_id, cause, subject) DO UPDATE
               SET violation_id = CASE WHEN c.last_at < excluded.last_at - quiet THEN excluded.violation_id ELSE c.violation_id END,
                   first_at = CASE WHEN c.last_at < excluded.last_at - quiet THEN excluded.first_at ELSE c.first_at END,
                   last_at = greatest(c.last_at, excluded.last_at)
            RETURNING c.member_id, c.cause, c.subject, c.violation_id, c.first_at
        ), tallied AS (
            INSERT INTO tally_new (tenant, at, kind, one, two, three, amount)
            SELECT of_tenant, date_bin('15 minutes', a.at, '2000-01-01'), 'refusal', coalesce(a.rule_id::text, ''), a.code, a.effect, a.hits
              FROM asked a
        ), written AS (
        INSERT INTO violation AS w (tenant, id, code, rule_id, rule_version, mode, effect, member_id, session_id, device_id, ip,
                                    first_at, last_at, hits, details)
        SELECT of_tenant, k.violation_id, a.code, a.rule_id, a.rule_version, a.mode, a.effect, a.member_id, a.session_id, a.device_id,
               a.ip::inet, k.first_at, a.at, a.hits, a.details
          FROM asked a JOIN kept k ON (a.member_id, a.cause, a.subject) = (k.member_id, k.cause, k.subject)
            ON CONFLICT (tenant, id, first_at) DO UPDATE
           SET hits = w.hits + excluded.hits,
               last_at = greatest(w.last_at, excluded.last_at),
               rule_version = excluded.rule_version,
               mode = excluded.mode,
               effect = excluded.effect,
               session_id = coalesce(excluded.session_id, w.session_id),
               ip = coalesce(excluded.ip, w.ip),
               details = excluded.details
        )
        SELECT k.violation_id, k.member_id, k.cause, k.subject FROM kept k
    $$
    """,
)


def upgrade() -> None:
    """Add what is new; what is there keeps its meaning for the release before."""
    for statement in STATEMENTS:
        op.execute(statement)
