"""Callers that are refused although their tokens are genuine."""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0014"
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
)


def upgrade() -> None:
    """Add what is new; the release before knows nothing of it."""
    for statement in STATEMENTS:
        op.execute(statement)
