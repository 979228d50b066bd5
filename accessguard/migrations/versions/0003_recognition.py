"""What was told of each distinct user agent, once for all workers and tenants."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    # `key` is a hash of the user agent and the hints that are read: neither is kept, nor whose they were. One row for each
    # version of the recogniser, so that two releases side by side leave each other's alone. `refined_at` NULL: a worker is at it.
    """
    CREATE TABLE recognition (
        key           bytea NOT NULL CHECK (length(key) = 32),
        version       text NOT NULL,
        claimed_at    timestamptz NOT NULL,
        refined_at    timestamptz,
        used_at       timestamptz NOT NULL,
        device_class  text,
        model         text,
        name          text,
        PRIMARY KEY (key, version)
    )
    """,
    "CREATE INDEX recognition_by_use ON recognition (used_at)",
)


def upgrade() -> None:
    """Add what is new; what is there keeps its meaning for the release before."""
    for statement in STATEMENTS:
        op.execute(statement)
