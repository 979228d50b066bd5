"""Callers that are refused although their tokens are genuine."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

STATEMENTS = (
    # `tenant` is what the refused tokens are bound to, '*' for those of all tenants. `kind` is "token" (`name` is its `jti`) or
    # "caller" (its `sub`; tokens issued up to `issued_until` are refused). A lifted one stays for a while, so that every
    # worker reads of it; `generation` is by what they find what is new.
    """
    CREATE TABLE revocation (
        tenant        text NOT NULL,
        kind          text NOT NULL,
        name          text NOT NULL,
        id            uuid NOT NULL,
        generation    bigint NOT NULL,
        issued_until  timestamptz NOT NULL,
        expires_at    timestamptz,
        at            timestamptz NOT NULL,
        actor         text NOT NULL,
        reason        text,
        lifted_at     timestamptz,
        PRIMARY KEY (tenant, kind, name)
    )
    """,
    "CREATE UNIQUE INDEX revocation_id ON revocation (tenant, id)",
    "CREATE INDEX revocation_by_time ON revocation (tenant, at, id)",
    "CREATE INDEX revocation_generation ON revocation (generation)",
    # The token with which somebody signed in, so that its end is theirs.
    "ALTER TABLE console_session ADD COLUMN token_id text",
    # As it was, but that what a whole tenant has goes only when it was deleted: whoever may call this may do no more with it
    # than the service does, also where it runs with its owner's rights (config/postgres/grants.sql).
    """
    CREATE OR REPLACE FUNCTION erase_rows(of_table text, of_tenant text, of_member text, most integer) RETURNS bigint
    LANGUAGE plpgsql AS $$
    DECLARE gone bigint;
    BEGIN
        IF of_member IS NULL AND NOT EXISTS (SELECT FROM tenant WHERE id = of_tenant AND deleted_at IS NOT NULL) THEN
            RAISE EXCEPTION 'the tenant was not deleted' USING ERRCODE = 'insufficient_privilege';
        ELSIF of_member IS NULL THEN
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
)


def upgrade() -> None:
    """Add what is new; the release before knows nothing of it."""
    for statement in STATEMENTS:
        op.execute(statement)
