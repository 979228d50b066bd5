"""Down to which revision older servers may go on."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# One row. A migration that takes something away raises it, in the same transaction, to the first revision whose servers
# no longer need that; until then everything is only added to, and whoever works on 0002 works on what came later.
STATEMENTS = (
    """
    CREATE TABLE schema_floor (
        one       boolean PRIMARY KEY DEFAULT true CHECK (one),
        revision  text NOT NULL CHECK (revision ~ '^[0-9]{4}$')
    )
    """,
    "INSERT INTO schema_floor (revision) VALUES ('0002')",
)


def upgrade() -> None:
    """Add what is new; the release before knows nothing of it."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Forward only: a schema is never taken back."""
    raise NotImplementedError("migrations are forward only")
