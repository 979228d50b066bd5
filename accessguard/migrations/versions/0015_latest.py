"""Who is active now: a member's last activity, beside its row as long as it moves."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

STATEMENTS = (
    # As long as there is a row, it is later than what the member's own says; upkeep takes it over there once it rests. The
    # release before reads the member's own row alone: until it is gone, its lists are behind by as long as that takes.
    """
    CREATE TABLE member_activity (
        member_id   text NOT NULL,
        tenant      text NOT NULL,
        at          timestamptz NOT NULL,
        kind        text NOT NULL,
        session_id  text NOT NULL,
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    "CREATE INDEX member_activity_by_time ON member_activity (tenant, at, member_id)",
    # Begins with the member, as the keys of devices and sessions do.
    "ALTER TABLE member_activity ADD PRIMARY KEY (member_id, tenant)",
)


def upgrade() -> None:
    """Add what is new; rows that are there keep their last activity, and the release before goes on writing it there."""
    for statement in STATEMENTS:
        op.execute(statement)
