"""What is remembered of device tokens: older ones, what the present one is derived from, whether anybody has shown it."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# `older_hashes` are the first 8 bytes of the hashes before `previous_hash`, newest first, six at most. `secret_seed` says nothing
# without the key that secrets are derived by. A device that the release before writes has none that fits, which is noticed.
STATEMENTS = (
    """
    ALTER TABLE device
        ADD COLUMN older_hashes bytea,
        ADD COLUMN secret_seed bytea,
        ADD COLUMN shown_at timestamptz
    """,
)


def upgrade() -> None:
    """Add what is new; what is there keeps its meaning for the release before."""
    for statement in STATEMENTS:
        op.execute(statement)
