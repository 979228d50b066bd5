"""Erasure, notices, retention by tenant, tenants of tenants."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

STATEMENTS = (
    # `deleted_at` set: nobody is let in any more and nothing is made under this name again; the rest is taken away in
    # portions, after which only this line is left. A foreign key would have every deletion look at all tenants.
    """
    ALTER TABLE tenant
        ADD COLUMN parent text,
        ADD COLUMN status text NOT NULL DEFAULT 'active',
        ADD COLUMN deleted_at timestamptz,
        ADD COLUMN emptied_at timestamptz
    """,
    # Which version of the notice on monitoring a member was shown, and when first.
    """
    CREATE TABLE member_notice (
        tenant     text NOT NULL,
        member_id  text NOT NULL,
        version    text NOT NULL CHECK (length(version) BETWEEN 1 AND 128),
        shown_at   timestamptz NOT NULL,
        PRIMARY KEY (tenant, member_id, version),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    # That somebody was erased, for workers that missed the push; never who. A day later it goes.
    """
    CREATE TABLE erasure (
        tenant      text NOT NULL,
        id          uuid NOT NULL,
        at          timestamptz NOT NULL,
        generation  bigint NOT NULL DEFAULT nextval('generation'),
        PRIMARY KEY (tenant, id)
    )
    """,
    "CREATE INDEX erasure_generation ON erasure (generation)",
    # Up to where addresses of a tenant have been cut short, so that each row is looked at once.
    """
    CREATE TABLE retention_mark (
        tenant  text NOT NULL,
        ledger  text NOT NULL,
        at      timestamptz NOT NULL,
        PRIMARY KEY (tenant, ledger)
    )
    """,
    # Take away at most so many rows of a member, or of a whole tenant (of_member NULL), from any table; what a later release
    # adds is erased by this one's way. Marks of how far a round has come, and lines
    # of the audit log, stay and name nobody. A place within one
    # partition may be that of another row in the next one, so the rows are named as well.
    """
    CREATE FUNCTION erase_rows(of_table text, of_tenant text, of_member text, most integer) RETURNS bigint
    LANGUAGE plpgsql AS $$
    DECLARE gone bigint;
    BEGIN
        IF of_member IS NULL THEN
            EXECUTE format('DELETE FROM %1$I WHERE tenant = $1 AND ctid = ANY(ARRAY(SELECT ctid FROM %1$I WHERE tenant = $1 LIMIT $2))',
                           of_table) USING of_tenant, most;
        ELSIF of_table LIKE '%\\_mark' THEN
            EXECUTE format('UPDATE %1$I SET member_id = '''' WHERE tenant = $1 AND member_id = $2', of_table) USING of_tenant, of_member;
        ELSIF of_table = 'audit' THEN
            EXECUTE 'UPDATE audit SET member_id = NULL WHERE tenant = $1 AND member_id = $2' USING of_tenant, of_member;
        ELSE
            EXECUTE format('DELETE FROM %1$I WHERE tenant = $1 AND member_id = $2
                               AND ctid = ANY(ARRAY(SELECT ctid FROM %1$I WHERE tenant = $1 AND member_id = $2 LIMIT $3))',
                           of_table) USING of_tenant, of_member, most;
        END IF;
        GET DIAGNOSTICS gone = ROW_COUNT;
        RETURN gone;
    END $$
    """,
    # A member, or its rows in a table, as JSON; what a later release adds is exported by this one's way.
    """
    CREATE FUNCTION member_rows(of_table text, of_tenant text, of_member text, most integer) RETURNS SETOF jsonb
    LANGUAGE plpgsql STABLE AS $$
    BEGIN
        RETURN QUERY EXECUTE format('SELECT to_jsonb(x) FROM %I x WHERE tenant = $1 AND %I = $2 LIMIT $3',
                                    of_table, CASE of_table WHEN 'member' THEN 'id' ELSE 'member_id' END)
                       USING of_tenant, of_member, most;
    END $$
    """,
    # Jobs that are over and whose result, or a part of it, names somebody.
    """
    CREATE FUNCTION erase_jobs(of_tenant text, names text[]) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE child text; gone bigint; more bigint;
    BEGIN
        DELETE FROM job j WHERE j.tenant = of_tenant AND j.state IN ('done', 'failed')
           AND EXISTS (SELECT FROM unnest(names) n WHERE position(lower(n) IN lower(concat_ws(' ', j.result, j.asked, j.error))) > 0);
        GET DIAGNOSTICS gone = ROW_COUNT;
        FOR child IN SELECT DISTINCT c.conrelid::regclass::text FROM pg_constraint c
                       JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attname = 'body' AND a.atttypid = 'bytea'::regtype
                      WHERE c.contype = 'f' AND c.confrelid = 'job'::regclass
        LOOP
            EXECUTE format('DELETE FROM job j WHERE j.tenant = $1 AND j.state IN (''done'', ''failed'') AND EXISTS (
                                SELECT FROM %s p, unnest($2) n WHERE p.tenant = $1 AND p.job_id = j.id
                                   AND position(convert_to(n, ''UTF8'') IN p.body) > 0)', child) USING of_tenant, names;
            GET DIAGNOSTICS more = ROW_COUNT;
            gone := gone + more;
        END LOOP;
        RETURN gone;
    END $$
    """,
    # Whole months that are too old for every tenant: at once or, where somebody reads them, a little later.
    """
    CREATE FUNCTION drop_partition(parent text, child text) RETURNS bigint LANGUAGE plpgsql
    SET lock_timeout = '50ms' AS $$
    DECLARE held bigint;
    BEGIN
        SELECT greatest(reltuples, 0)::bigint INTO held FROM pg_class WHERE oid = to_regclass(child);
        IF held IS NOT NULL AND EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(child) AND inhparent = to_regclass(parent)) THEN
            EXECUTE format('DROP TABLE %I', child);
        END IF;
        RETURN coalesce(held, 0);
    END $$
    """,
    # What is left of an address that is cut short: its /24, or /48 for IPv6.
    """
    CREATE FUNCTION cut_address(whole inet) RETURNS inet LANGUAGE sql IMMUTABLE AS $$
        SELECT host(network(set_masklen(whole, CASE family(whole) WHEN 4 THEN 24 ELSE 48 END)))::inet
    $$
    """,
)


def upgrade() -> None:
    """Add what is new; the release before knows nothing of it."""
    for statement in STATEMENTS:
        op.execute(statement)
