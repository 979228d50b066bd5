"""What happened, in the order in which readers may follow it, and who is told over HTTP."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

STATEMENTS = (
    # `xact` is the number of the transaction that wrote the row. Readers stop before the oldest one that still runs, so
    # nothing that commits late is ever passed by; within a transaction `id` goes on.
    """
    CREATE TABLE event (
        tenant     text NOT NULL,
        xact       bigint NOT NULL DEFAULT txid_current(),
        id         bigint GENERATED ALWAYS AS IDENTITY,
        at         timestamptz NOT NULL DEFAULT clock_timestamp(),
        kind       text NOT NULL,
        member_id  text,
        body       jsonb NOT NULL,
        PRIMARY KEY (tenant, xact, id)
    )
    """,
    "CREATE INDEX event_by_age ON event (at)",
    "CREATE INDEX event_by_member ON event (tenant, member_id) WHERE member_id IS NOT NULL",
    # Up to where a tenant's events have been taken away: whoever stopped before cannot go on.
    """
    CREATE TABLE event_mark (
        tenant  text NOT NULL PRIMARY KEY,
        xact    bigint NOT NULL,
        id      bigint NOT NULL
    )
    """,
    """
    CREATE FUNCTION tell_session() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO event (tenant, kind, member_id, body)
        VALUES (NEW.tenant, 'session_ended', NEW.member_id, jsonb_build_object(
            'session_id', NEW.id, 'device_id', NEW.device_id, 'reason', NEW.end_reason));
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION tell_device() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE change text := 'new';
    BEGIN
        IF TG_OP = 'UPDATE' THEN
            change := CASE WHEN NEW.merged_into IS DISTINCT FROM OLD.merged_into THEN 'merged'
                           WHEN NEW.forgotten_at IS NOT NULL AND OLD.forgotten_at IS NULL THEN 'forgotten'
                           ELSE NEW.access END;
        END IF;
        INSERT INTO event (tenant, kind, member_id, body)
        VALUES (NEW.tenant, 'device_changed', NEW.member_id, jsonb_build_object(
            'device_id', NEW.id, 'change', change, 'label', NEW.label));
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION tell_member() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO event (tenant, kind, member_id, body) VALUES (NEW.tenant, 'member_changed', NEW.id, '{}');
        RETURN NULL;
    END $$
    """,
    # Who is erased is not named; of a tenant that goes altogether nothing is told.
    """
    CREATE FUNCTION tell_member_gone() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO event (tenant, kind, body)
        SELECT id, 'member_changed', '{}' FROM tenant WHERE id = OLD.tenant AND deleted_at IS NULL;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION tell_policy() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO event (tenant, kind, body) VALUES (NEW.id, 'policy_changed', '{}');
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION tell_violation() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO event (tenant, kind, member_id, body)
        VALUES (NEW.tenant, 'violation', NEW.member_id, jsonb_build_object(
            'violation_id', NEW.id, 'code', NEW.code, 'rule_id', NEW.rule_id, 'mode', NEW.mode, 'effect', NEW.effect,
            'session_id', NEW.session_id, 'device_id', NEW.device_id));
        RETURN NULL;
    END $$
    """,
    # Whom a tenant wants told. `xact` and `event_id` are up to where its deliveries have been made out.
    """
    CREATE TABLE webhook (
        tenant         text NOT NULL,
        id             uuid NOT NULL,
        url            text NOT NULL,
        events         text[] NOT NULL,
        digest         text,
        digest_at      timestamptz,
        secret         text NOT NULL,
        status         text NOT NULL DEFAULT 'active',
        failing_since  timestamptz,
        created_at     timestamptz NOT NULL,
        xact           bigint NOT NULL DEFAULT txid_current(),
        event_id       bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant, id)
    )
    """,
    # One message to one receiver, with the text that is signed; `number` is its place in its member's order.
    """
    CREATE TABLE webhook_delivery (
        tenant       text NOT NULL,
        webhook_id   uuid NOT NULL,
        id           uuid NOT NULL DEFAULT gen_random_uuid(),
        number       bigint GENERATED ALWAYS AS IDENTITY,
        member_id    text,
        kind         text NOT NULL,
        payload      text NOT NULL,
        state        text NOT NULL DEFAULT 'pending',
        attempts     integer NOT NULL DEFAULT 0,
        created_at   timestamptz NOT NULL,
        due_at       timestamptz NOT NULL,
        last_at      timestamptz,
        last_status  integer,
        last_error   text,
        PRIMARY KEY (tenant, webhook_id, id),
        FOREIGN KEY (tenant, webhook_id) REFERENCES webhook ON DELETE CASCADE
    )
    """,
    "CREATE INDEX webhook_delivery_lane ON webhook_delivery (tenant, webhook_id, coalesce(member_id, ''), number) WHERE state = 'pending'",
    "CREATE INDEX webhook_delivery_due ON webhook_delivery (due_at) WHERE state = 'pending'",
    "CREATE INDEX webhook_delivery_log ON webhook_delivery (tenant, webhook_id, number DESC)",
)


def upgrade() -> None:
    """Add what is new; what writes the events is put on its tables beside the service (migrations/triggers.py)."""
    for statement in STATEMENTS:
        op.execute(statement)
