"""Who has cases that a reader has not read: kept beside the cases, brought up to date by whoever asks."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

STATEMENTS = (
    # Members whose cases, or whose marks by one reader ('': whoever reads), are others than before: one row each, moved by
    # whoever changes them. `moved` is the transaction, so that a reader can tell what it has not seen yet, however
    # long that one took.
    """
    CREATE TABLE unread_moved (
        tenant     text NOT NULL,
        member_id  text NOT NULL,
        reader     text NOT NULL DEFAULT '',
        moved      xid8 NOT NULL DEFAULT pg_current_xact_id(),
        at         timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant, member_id, reader)
    )
    """,
    "CREATE INDEX unread_moved_by_reader ON unread_moved (tenant, reader, moved)",
    "CREATE INDEX unread_moved_by_age ON unread_moved (at)",
    # What a reader ('': all those who have read nothing) has been counted with: every transaction of `seen`.
    """
    CREATE TABLE unread_sheet (
        tenant     text NOT NULL,
        reader     text NOT NULL,
        seen       pg_snapshot NOT NULL,
        made_at    timestamptz NOT NULL,
        caught_at  timestamptz NOT NULL,
        PRIMARY KEY (tenant, reader)
    )
    """,
    "CREATE INDEX unread_sheet_by_age ON unread_sheet (caught_at)",
    # Members with a case that this reader has not read, and how many; nobody else has a row. The key begins with the
    # member, as it is looked up by, and taken away by.
    """
    CREATE TABLE unread_member (
        tenant     text NOT NULL,
        member_id  text NOT NULL,
        reader     text NOT NULL,
        unread     bigint NOT NULL,
        PRIMARY KEY (tenant, member_id, reader)
    )
    """,
    "CREATE INDEX unread_member_by_count ON unread_member (tenant, reader, unread, member_id)",
    """
    CREATE FUNCTION unread_cases(of_tenant text, of_reader text, of_member text) RETURNS bigint LANGUAGE sql STABLE AS $$
        SELECT count(*) FROM violation v
         WHERE v.tenant = of_tenant AND v.member_id = of_member AND v.effect <> 'exempt'
           AND NOT EXISTS (SELECT FROM read_mark r
                            WHERE r.tenant = of_tenant AND r.violation_id = v.id AND r.reader = of_reader AND r.hits >= v.hits)
    $$
    """,
    # Bring the sheet of a reader up to date; the name that it goes by. Many changes, and what no note was taken of (marks by
    # the release before), are counted anew: after a day without a look, and every week. Snapshots of another cluster, as
    # after a restore, say nothing here.
    """
    CREATE FUNCTION unread_catch_up(of_tenant text, of_reader text, most integer) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE
        who text := '';
        sheet unread_sheet;
        now_seen pg_snapshot;
        due text[];
    BEGIN
        IF EXISTS (SELECT FROM read_mark r WHERE r.tenant = of_tenant AND r.reader = of_reader) THEN
            who := of_reader;
        END IF;
        FOR turn IN 1 .. 2 LOOP
            IF turn = 1 THEN
                SELECT * INTO sheet FROM unread_sheet s WHERE s.tenant = of_tenant AND s.reader = who;
            ELSE
                INSERT INTO unread_sheet (tenant, reader, seen, made_at, caught_at)
                VALUES (of_tenant, who, pg_current_snapshot(), '-infinity', '-infinity') ON CONFLICT DO NOTHING;
                SELECT * INTO sheet FROM unread_sheet s WHERE s.tenant = of_tenant AND s.reader = who FOR UPDATE;
            END IF;
            now_seen := pg_current_snapshot();
            IF sheet.caught_at > now() - interval '1 day' AND sheet.made_at > now() - interval '7 days'
               AND pg_snapshot_xmax(sheet.seen) <= pg_snapshot_xmax(now_seen) THEN
                due := ARRAY(
                    SELECT member_id FROM unread_moved
                     WHERE tenant = of_tenant AND reader IN ('', who) AND moved >= pg_snapshot_xmin(sheet.seen)
                       AND NOT pg_visible_in_snapshot(moved, sheet.seen) LIMIT most + 1);
                IF due = '{}' AND sheet.caught_at > now() - interval '1 hour' THEN
                    RETURN who;
                END IF;
            END IF;
        END LOOP;
        IF due IS NULL OR cardinality(due) > most THEN
            DELETE FROM unread_member u WHERE u.tenant = of_tenant AND u.reader = who;
            INSERT INTO unread_member (tenant, member_id, reader, unread)
            SELECT of_tenant, v.member_id, who, count(*) FROM violation v
             WHERE v.tenant = of_tenant AND v.effect <> 'exempt'
               AND NOT EXISTS (SELECT FROM read_mark r
                                WHERE r.tenant = of_tenant AND r.violation_id = v.id AND r.reader = who AND r.hits >= v.hits)
             GROUP BY v.member_id;
            sheet.made_at := now();
        ELSE
            DELETE FROM unread_member u
             WHERE u.tenant = of_tenant AND u.member_id = ANY(due) AND u.reader = who
               AND unread_cases(of_tenant, who, u.member_id) = 0;
            INSERT INTO unread_member AS u (tenant, member_id, reader, unread)
            SELECT of_tenant, d.member_id, who, d.unread
              FROM (SELECT DISTINCT m AS member_id, unread_cases(of_tenant, who, m) AS unread FROM unnest(due) m) d WHERE d.unread > 0
                ON CONFLICT (tenant, member_id, reader) DO UPDATE SET unread = excluded.unread WHERE u.unread <> excluded.unread;
        END IF;
        UPDATE unread_sheet s SET seen = now_seen, made_at = sheet.made_at, caught_at = now()
         WHERE s.tenant = of_tenant AND s.reader = who;
        RETURN who;
    END $$
    """,
    # As it was, tallied by rule (0009), and noted for those who read.
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
        ), noted AS (
            INSERT INTO unread_moved AS m (tenant, member_id)
            SELECT DISTINCT of_tenant, a.member_id FROM asked a ORDER BY a.member_id
                ON CONFLICT (tenant, member_id, reader) DO UPDATE SET moved = excluded.moved, at = excluded.at
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
    """Add what is new; the release before notes its cases as well, its marks are counted within a week."""
    for statement in STATEMENTS:
        op.execute(statement)
