"""The console: who is signed in."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

STATEMENTS = (
    # A link that was given out is a session that nobody has begun yet (`offered_until` set), so that it is used once. Of what
    # the browser or the link holds only a hash is stored.
    """
    CREATE TABLE console_session (
        tenant         text NOT NULL,
        id             uuid NOT NULL,
        operator       text NOT NULL,
        role           text NOT NULL,
        secret         bytea NOT NULL,
        offered_until  timestamptz,
        begun_at       timestamptz NOT NULL,
        seen_at        timestamptz NOT NULL,
        ends_at        timestamptz NOT NULL,
        PRIMARY KEY (tenant, id)
    )
    """,
    "CREATE INDEX console_session_operator ON console_session (tenant, operator)",
    "CREATE INDEX console_session_end ON console_session (tenant, ends_at)",
)


def upgrade() -> None:
    """Add what is new; the release before knows nothing of it."""
    for statement in STATEMENTS:
        op.execute(statement)
