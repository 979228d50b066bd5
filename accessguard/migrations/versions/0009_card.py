"""What outlives the raw rows: access by product and run, tallies by day; and what operators write: comments, preferences."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

STATEMENTS = (
    # When a member used a product first and last; moved by the flush of beats, and by nothing that retention does. No
    # index on a time, so that a beat updates its row in place.
    """
    CREATE TABLE product_access (
        tenant      text NOT NULL,
        member_id   text NOT NULL,
        product_id  text NOT NULL,
        first_at    timestamptz NOT NULL,
        last_at     timestamptz NOT NULL,
        PRIMARY KEY (tenant, member_id, product_id),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX product_access_by_product ON product_access (tenant, product_id, member_id)",
    # When a member first entered one run of a resource, such as one date of a webinar; written once.
    """
    CREATE TABLE run_access (
        tenant      text NOT NULL,
        member_id   text NOT NULL,
        resource    text NOT NULL,
        run         text NOT NULL,
        product_id  text,
        first_at    timestamptz NOT NULL,
        PRIMARY KEY (tenant, member_id, resource, run),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    # The last pages of a member, rebuilt every few minutes for whoever was active; and how far that has come: everybody up
    # to `member_id` of those last active at `at`.
    """
    CREATE TABLE member_page (
        tenant     text NOT NULL,
        member_id  text NOT NULL,
        pages      jsonb NOT NULL,
        PRIMARY KEY (tenant, member_id),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE page_mark (
        tenant     text PRIMARY KEY REFERENCES tenant ON DELETE CASCADE,
        at         timestamptz NOT NULL,
        member_id  text NOT NULL
    )
    """,
    # Only ever added to by those who count, so that nobody waits for anybody's line; upkeep adds up and takes away. Nothing
    # personal. `at` is the quarter of an hour, of which the days of every time zone are made. No foreign key: each new row
    # would lock the tenant's.
    """
    CREATE TABLE tally_new (
        tenant  text NOT NULL,
        at      timestamptz NOT NULL,
        kind    text NOT NULL,
        one     text NOT NULL,
        two     text NOT NULL DEFAULT '',
        three   text NOT NULL DEFAULT '',
        four    text NOT NULL DEFAULT '',
        amount  bigint NOT NULL,
        fresh   bigint NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX tally_new_by_tenant ON tally_new (tenant)",
    # By day of the tenant's time zone, kept for ever: some hundred rows a day at most.
    """
    CREATE TABLE day_tally (
        tenant  text NOT NULL REFERENCES tenant ON DELETE CASCADE,
        kind    text NOT NULL,
        day     date NOT NULL,
        one     text NOT NULL,
        two     text NOT NULL,
        three   text NOT NULL,
        amount  bigint NOT NULL,
        fresh   bigint NOT NULL,
        PRIMARY KEY (tenant, kind, day, one, two, three)
    )
    """,
    # Tenants with a past that nobody has counted yet: what was recorded before `before`, of members after `member_id`.
    """
    CREATE TABLE tally_past (
        tenant     text PRIMARY KEY REFERENCES tenant ON DELETE CASCADE,
        before     timestamptz NOT NULL,
        member_id  text NOT NULL DEFAULT ''
    )
    """,
    "INSERT INTO tally_past (tenant, before) SELECT id, now() FROM tenant",
    # Neither edited nor deleted, but with the member.
    """
    CREATE TABLE comment (
        tenant     text NOT NULL,
        member_id  text NOT NULL,
        id         uuid NOT NULL,
        at         timestamptz NOT NULL,
        author     text NOT NULL,
        role       text NOT NULL,
        body       text NOT NULL,
        PRIMARY KEY (tenant, id),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    "CREATE INDEX comment_by_member ON comment (tenant, member_id, at DESC, id)",
    """
    CREATE TABLE preference (
        tenant      text NOT NULL REFERENCES tenant ON DELETE CASCADE,
        operator    text NOT NULL,
        name        text NOT NULL,
        value       jsonb NOT NULL,
        updated_at  timestamptz NOT NULL,
        PRIMARY KEY (tenant, operator, name)
    )
    """,
    # What a job leaves to be fetched; it goes with its job.
    """
    CREATE TABLE job_part (
        tenant  text NOT NULL,
        job_id  uuid NOT NULL,
        number  integer NOT NULL,
        body    bytea NOT NULL,
        PRIMARY KEY (tenant, job_id, number),
        FOREIGN KEY (tenant, job_id) REFERENCES job ON DELETE CASCADE
    )
    """,
    # Where the profile says that the member lives.
    "ALTER TABLE member ADD COLUMN country text, ADD COLUMN city text",
    # Whom an act was about, where its target is a device, a session or a case of somebody's.
    "ALTER TABLE audit ADD COLUMN member_id text",
)


def upgrade() -> None:
    """Add what is new; what is there keeps its meaning for the release before."""
    for statement in STATEMENTS:
        op.execute(statement)
