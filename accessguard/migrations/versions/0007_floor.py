"""Down to which revision older servers may go on; new partitions that give way."""

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
    # A new partition takes the default one for itself, behind which everybody would wait who comes after a backup that reads
    # it. Nobody is in a hurry: partitions are made two months ahead.
    """
    CREATE OR REPLACE FUNCTION ensure_partition(parent text, month date) RETURNS void LANGUAGE plpgsql
    SET lock_timeout = '50ms' AS $$
    DECLARE child text := parent || '_' || to_char(month, 'YYYYMM');
    BEGIN
        IF to_regclass(child) IS NULL THEN
            EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                           child, parent, month, (month + interval '1 month')::date);
        END IF;
    END $$
    """,
)


def upgrade() -> None:
    """Add what is new; the release before knows nothing of it."""
    for statement in STATEMENTS:
        op.execute(statement)
