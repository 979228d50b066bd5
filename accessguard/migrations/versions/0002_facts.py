"""What more rules look at: networks, places, enrolments, passes, challenges; and jobs."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    # One row for each address that a session was seen at; `session_id` is empty for a login that got no session.
    # `admitted_at` NULL: it was refused and takes no place. No index on a time, so that a beat updates in place.
    """
    CREATE TABLE member_network (
        tenant       text NOT NULL,
        member_id    text NOT NULL,
        session_id   text NOT NULL,
        ip           inet NOT NULL,
        device_id    uuid,
        first_at     timestamptz NOT NULL,
        last_at      timestamptz NOT NULL,
        admitted_at  timestamptz,
        country      text,
        asn          bigint,
        city         text,
        latitude     double precision,
        longitude    double precision,
        PRIMARY KEY (tenant, member_id, session_id, ip),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX member_network_by_address ON member_network (tenant, ip)",
    """
    CREATE TABLE enrolment (
        tenant        text NOT NULL,
        member_id     text NOT NULL,
        product_id    text NOT NULL CHECK (length(product_id) BETWEEN 1 AND 128),
        starts_at     timestamptz NOT NULL,
        ends_at       timestamptz,
        purchased_at  timestamptz,
        status        text NOT NULL CHECK (status IN ('active', 'deactivated', 'frozen')),
        reopens_at    timestamptz,
        updated_at    timestamptz NOT NULL,
        PRIMARY KEY (tenant, member_id, product_id),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    "CREATE INDEX enrolment_by_product ON enrolment (tenant, product_id, member_id)",
    """
    CREATE TABLE enrolment_change (
        tenant      text NOT NULL,
        member_id   text NOT NULL,
        product_id  text NOT NULL,
        id          uuid NOT NULL,
        at          timestamptz NOT NULL,
        actor       text NOT NULL,
        reason      text,
        before      jsonb,
        after       jsonb,
        PRIMARY KEY (tenant, member_id, at, id),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE pass (
        tenant      text NOT NULL,
        id          uuid NOT NULL,
        member_id   text NOT NULL,
        kind        text NOT NULL CHECK (kind IN ('extra_device', 'extra_session', 'suspend_checks')),
        until       timestamptz NOT NULL,
        reason      text,
        own         boolean NOT NULL DEFAULT false,
        created_at  timestamptz NOT NULL,
        created_by  text NOT NULL,
        PRIMARY KEY (tenant, id),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    "CREATE INDEX pass_by_end ON pass (tenant, member_id, until)",
    # `asked` is what a login needs to be finished; `freed` is what the member closed to free a place.
    """
    CREATE TABLE challenge (
        tenant        text NOT NULL,
        id            uuid NOT NULL,
        member_id     text NOT NULL,
        session_id    text,
        device_id     uuid,
        rule_id       uuid NOT NULL,
        rule_version  integer NOT NULL,
        subject       text NOT NULL,
        violation_id  uuid,
        stage         text NOT NULL CHECK (stage IN ('login', 'check')),
        asked         jsonb,
        created_at    timestamptz NOT NULL,
        expires_at    timestamptz NOT NULL,
        outcome       text CHECK (outcome IN ('passed', 'failed')),
        settled_at    timestamptz,
        settled_by    text,
        freed         jsonb,
        good_until    timestamptz,
        PRIMARY KEY (tenant, id),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    "CREATE INDEX challenge_by_member ON challenge (tenant, member_id, created_at DESC, id)",
    """
    CREATE TABLE job (
        tenant      text NOT NULL REFERENCES tenant ON DELETE CASCADE,
        id          uuid NOT NULL,
        kind        text NOT NULL,
        state       text NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed')),
        progress    bigint NOT NULL DEFAULT 0,
        total       bigint,
        result      jsonb,
        error       text,
        created_at  timestamptz NOT NULL,
        updated_at  timestamptz NOT NULL,
        expires_at  timestamptz NOT NULL,
        PRIMARY KEY (tenant, id)
    )
    """,
    "CREATE INDEX job_by_age ON job (tenant, expires_at)",
    # A failure written by the release before is not counted: no rule looked at failures then.
    """
    ALTER TABLE login_attempt
        ADD COLUMN country text,
        ADD COLUMN asn bigint,
        ADD COLUMN city text,
        ADD COLUMN counted boolean NOT NULL DEFAULT false
    """,
    # Kept when a device is forgotten, which takes `admitted_at` away: forgetting one does not make the next one free.
    "ALTER TABLE device ADD COLUMN first_admitted_at timestamptz",
    "UPDATE device SET first_admitted_at = admitted_at WHERE admitted_at IS NOT NULL",
    "CREATE INDEX login_failure_by_member ON login_attempt (tenant, member_id, at DESC) WHERE counted",
    "CREATE INDEX login_failure_by_address ON login_attempt (tenant, ip, at DESC) WHERE counted",
    "CREATE INDEX violation_by_rule ON violation (tenant, member_id, rule_id, first_at DESC)",
)


def upgrade() -> None:
    """Add what is new; what is there keeps its meaning for the release before."""
    for statement in STATEMENTS:
        op.execute(statement)
