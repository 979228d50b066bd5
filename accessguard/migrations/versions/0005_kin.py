"""Devices that are one: merged ones and what tells of a lost cookie; telephone numbers written one way; evidence by day."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATEMENTS = (
    # A merged device is a forgotten one to the release before. `merged_into` always names the survivor itself, never one
    # that was merged in turn; `merged_ids` is the same from the other side, so that a snapshot needs no second look.
    # `screen` is what hints say of it in a few characters.
    """
    ALTER TABLE device
        ADD COLUMN merged_into uuid,
        ADD COLUMN merged_ids uuid[] NOT NULL DEFAULT '{}',
        ADD COLUMN screen text
    """,
    # NULL: not read yet, which a member without a number stays. Empty: no number that exists. Its indexes are in
    # migrations/indexes.py, as members may be many.
    "ALTER TABLE member ADD COLUMN phone_e164 text",
    # What one day (UTC) of a member showed of several people at once; only days that showed something have a row.
    """
    CREATE TABLE sharing_day (
        tenant             text NOT NULL,
        member_id          text NOT NULL,
        day                date NOT NULL,
        parallel_activity  smallint NOT NULL DEFAULT 0,
        parallel_devices   smallint NOT NULL DEFAULT 0,
        far_places         smallint NOT NULL DEFAULT 0,
        new_devices        smallint NOT NULL DEFAULT 0,
        last_at            timestamptz NOT NULL,
        PRIMARY KEY (tenant, member_id, day),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX sharing_day_by_day ON sharing_day (tenant, day)
        INCLUDE (member_id, parallel_activity, parallel_devices, far_places, new_devices, last_at)
    """,
    # How far the evidence is gathered: everybody whose last activity is not after this place; `since` is where that round
    # began, back to which the days of whoever comes next are looked at.
    """
    CREATE TABLE sharing_mark (
        tenant     text PRIMARY KEY REFERENCES tenant ON DELETE CASCADE,
        at         timestamptz NOT NULL,
        member_id  text NOT NULL,
        since      timestamptz NOT NULL
    )
    """,
)


def upgrade() -> None:
    """Add what is new; what is there keeps its meaning for the release before."""
    for statement in STATEMENTS:
        op.execute(statement)
