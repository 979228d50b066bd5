"""The student's page: what a student wrote about a case."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

STATEMENTS = (
    # A few sentences of a case, in it: they go, move and are exported with it. The release before writes none.
    "ALTER TABLE violation ADD COLUMN student_words jsonb NOT NULL DEFAULT '[]'::jsonb",
)


def upgrade() -> None:
    """Add what is new; the release before knows nothing of it."""
    for statement in STATEMENTS:
        op.execute(statement)
