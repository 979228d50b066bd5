"""When each job of upkeep was done last."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATEMENTS = (
    # One line for each job, of all tenants together. The indexes by age that the jobs go by are in migrations/indexes.py.
    """
    CREATE TABLE upkeep (
        job      text PRIMARY KEY,
        done_at  timestamptz NOT NULL
    )
    """,
)


def upgrade() -> None:
    """Add what is new; the release before knows nothing of it."""
    for statement in STATEMENTS:
        op.execute(statement)
