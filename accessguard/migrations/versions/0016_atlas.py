"""What readers have not read is kept up beside them; whoever is erased during an import stays so."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

STATEMENTS = (
    # When its reader looked last (NULL: nobody has since this release): a sheet is kept up as long as somebody does. `checked` is the member up to which it has been
    # counted anew, some at a time, for changes that nobody took a note of; NULL: it is not being checked.
    "ALTER TABLE unread_sheet ADD COLUMN looked_at timestamptz, ADD COLUMN checked text",
    # As `unread_catch_up` was (0012), but for this: a sheet is good as long as the notes since are there, for thirty days; the
    # weekly count is not the reader's; and who has marked something for the first time begins with what all the others have,
    # of which only those whom the marks are about are counted. `looked`: it is a reader who asks, not upkeep.
    """
    CREATE FUNCTION unread_kept_up(of_tenant text, of_reader text, most integer, looked boolean) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE
        who text := '';
        sheet unread_sheet;
        now_seen pg_snapshot;
        due text[];
        whole boolean := false;
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
            due := NULL;
            IF sheet.caught_at > now() - interval '30 days' AND pg_snapshot_xmax(sheet.seen) <= pg_snapshot_xmax(now_seen) THEN
                due := ARRAY(
                    SELECT member_id FROM unread_moved
                     WHERE tenant = of_tenant AND reader IN ('', who) AND moved >= pg_snapshot_xmin(sheet.seen)
                       AND NOT pg_visible_in_snapshot(moved, sheet.seen) LIMIT most + 1);
                IF due = '{}' AND sheet.caught_at > now() - interval '1 hour'
                   AND (NOT looked OR sheet.looked_at > now() - interval '1 day') THEN
                    RETURN who;
                END IF;
            END IF;
        END LOOP;
        IF due IS NULL AND who <> '' THEN
            due := ARRAY(
                SELECT DISTINCT v.member_id
                  FROM (SELECT violation_id FROM read_mark r WHERE r.tenant = of_tenant AND r.reader = who LIMIT most + 1) r,
                       LATERAL (SELECT member_id FROM violation WHERE tenant = of_tenant AND id = r.violation_id) v);
            IF (SELECT count(*) FROM (SELECT FROM read_mark r WHERE r.tenant = of_tenant AND r.reader = who LIMIT most + 1) r) <= most THEN
                PERFORM unread_kept_up(of_tenant, '', most, looked);
                DELETE FROM unread_member u WHERE u.tenant = of_tenant AND u.reader = who;
                INSERT INTO unread_member (tenant, member_id, reader, unread)
                SELECT of_tenant, u.member_id, who, u.unread FROM unread_member u WHERE u.tenant = of_tenant AND u.reader = '';
                sheet.made_at := now();
            ELSE
                due := NULL;
            END IF;
        END IF;
        whole := due IS NULL OR cardinality(due) > most;
        IF whole THEN
            DELETE FROM unread_member u WHERE u.tenant = of_tenant AND u.reader = who;
            INSERT INTO unread_member (tenant, member_id, reader, unread)
            SELECT of_tenant, v.member_id, who, count(*) FROM violation v
             WHERE v.tenant = of_tenant AND v.effect <> 'exempt'
               AND NOT EXISTS (SELECT FROM read_mark r
                                WHERE r.tenant = of_tenant AND r.violation_id = v.id AND r.reader = who AND r.hits >= v.hits)
             GROUP BY v.member_id;
            sheet.made_at := now();
            sheet.checked := NULL;
        ELSE
            DELETE FROM unread_member u
             WHERE u.tenant = of_tenant AND u.member_id = ANY(due) AND u.reader = who
               AND unread_cases(of_tenant, who, u.member_id) = 0;
            INSERT INTO unread_member AS u (tenant, member_id, reader, unread)
            SELECT of_tenant, d.member_id, who, d.unread
              FROM (SELECT DISTINCT m AS member_id, unread_cases(of_tenant, who, m) AS unread FROM unnest(due) m) d WHERE d.unread > 0
                ON CONFLICT (tenant, member_id, reader) DO UPDATE SET unread = excluded.unread WHERE u.unread <> excluded.unread;
        END IF;
        UPDATE unread_sheet s
           SET seen = now_seen, made_at = sheet.made_at, checked = sheet.checked, caught_at = now(),
               looked_at = CASE WHEN looked THEN now() ELSE coalesce(s.looked_at, now()) END
         WHERE s.tenant = of_tenant AND s.reader = who;
        RETURN who;
    END $$
    """,
    # Who was erased while a file of members was being taken in: the keyed hash that the receipt has, so that a line of that file
    # brings nobody back. It goes with the job.
    """
    CREATE TABLE import_erased (
        tenant   text NOT NULL,
        job_id   uuid NOT NULL,
        subject  text NOT NULL,
        PRIMARY KEY (tenant, job_id, subject),
        FOREIGN KEY (tenant, job_id) REFERENCES job ON DELETE CASCADE
    )
    """,
    """
    CREATE OR REPLACE FUNCTION unread_catch_up(of_tenant text, of_reader text, most integer) RETURNS text LANGUAGE sql AS $$
        SELECT unread_kept_up(of_tenant, of_reader, most, true)
    $$
    """,
)


def upgrade() -> None:
    """Add what is new; the release before asks by the name that it knows, and takes away what nobody has looked at for two days."""
    for statement in STATEMENTS:
        op.execute(statement)
