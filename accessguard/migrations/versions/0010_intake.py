"""Jobs that are done portion by portion: what is left to do, what was refused; which member was merged into which."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

STATEMENTS = (
    # `asked` is what is to be done, `counts` what came of it so far; `ready`: all of it is here, and whoever finds the job
    # left alone may go on with it.
    """
    ALTER TABLE job
        ADD COLUMN actor text,
        ADD COLUMN role text,
        ADD COLUMN asked jsonb,
        ADD COLUMN counts jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN ready boolean NOT NULL DEFAULT false
    """,
    # What is still to be done, as it came: some hundred lines of a file, or ids of members. Gone with the transaction that did it.
    """
    CREATE TABLE job_portion (
        tenant      text NOT NULL,
        job_id      uuid NOT NULL,
        number      integer NOT NULL,
        first_line  bigint NOT NULL,
        lines       integer NOT NULL,
        body        bytea NOT NULL,
        PRIMARY KEY (tenant, job_id, number),
        FOREIGN KEY (tenant, job_id) REFERENCES job ON DELETE CASCADE
    )
    """,
    # Never what the line said: only where it is, and what is wrong with it.
    """
    CREATE TABLE job_refusal (
        tenant   text NOT NULL,
        job_id   uuid NOT NULL,
        line     bigint NOT NULL,
        pointer  text NOT NULL,
        detail   text NOT NULL,
        PRIMARY KEY (tenant, job_id, line),
        FOREIGN KEY (tenant, job_id) REFERENCES job ON DELETE CASCADE
    )
    """,
    # The id that a member had before it was merged, for whoever asks twice. It is nobody's and may be given anew.
    """
    CREATE TABLE member_merge (
        tenant     text NOT NULL,
        id         text NOT NULL,
        member_id  text NOT NULL,
        at         timestamptz NOT NULL,
        report     jsonb NOT NULL,
        PRIMARY KEY (tenant, id),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    "CREATE INDEX member_merge_by_member ON member_merge (tenant, member_id)",
)


def upgrade() -> None:
    """Add what is new; the release before knows nothing of it."""
    for statement in STATEMENTS:
        op.execute(statement)
