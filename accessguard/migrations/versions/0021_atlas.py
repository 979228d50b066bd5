"""What PostgreSQL keeps of values as samples, for its planner, is drawn anew after an erasure."""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

STATEMENTS = (
    # One table whose samples (pg_statistic: the commonest values, bounds of histograms) are older than the newest erasure has
    # them drawn anew; its name, NULL when there is none. Clocks may differ by five minutes; whatever was drawn ten minutes ago
    # or later waits for the next run, so that no run comes to one table twice. A table that is empty keeps its samples when it
    # is analysed, so they are taken away first (PostgreSQL 18 can). Whoever does not own the table leaves it alone.
    """
    CREATE FUNCTION sample_anew() RETURNS text LANGUAGE plpgsql AS $$
    DECLARE
        found record;
        recent boolean := current_setting('server_version_num')::int >= 180000;
    BEGIN
        SELECT s.schemaname, s.relname, c.relkind INTO found
          FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
         WHERE s.schemaname = current_schema() AND pg_has_role(c.relowner, 'USAGE')
           AND coalesce(greatest(s.last_analyze, s.last_autoanalyze), '-infinity')
               < least((SELECT max(at) FROM erasure) + interval '5 minutes', now() - interval '10 minutes')
           AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = s.relid AND a.attname = 'tenant' AND NOT a.attisdropped)
           AND EXISTS (SELECT FROM pg_stats p WHERE p.schemaname = s.schemaname AND p.tablename = s.relname)
         ORDER BY s.relname LIMIT 1;
        IF found.relname IS NULL THEN
            RETURN NULL;
        END IF;
        IF recent THEN
            EXECUTE 'SELECT pg_clear_attribute_stats(p.schemaname, p.tablename, p.attname, p.inherited)
                       FROM pg_stats p WHERE p.schemaname = $1 AND p.tablename = $2' USING found.schemaname, found.relname;
        END IF;
        EXECUTE format(CASE WHEN recent AND found.relkind = 'p' THEN 'ANALYZE ONLY %I.%I' ELSE 'ANALYZE %I.%I' END,
                       found.schemaname, found.relname);
        RETURN found.relname;
    END $$
    """,
)


def upgrade() -> None:
    """Add what is new; the release before knows nothing of it."""
    for statement in STATEMENTS:
        op.execute(statement)
