"""Webhooks in another format and with their secrets encrypted, digests by the calendar, and members at risk."""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

STATEMENTS = (
    # `sealed` is the secret, encrypted; `secret` is then empty, with which the release before refuses to sign. A digest
    # tells of what was from `digest_from` until `digest_at`; null: as long before that as one lasts. `risk_at` is when the
    # tenant's members were last looked at.
    """
    ALTER TABLE webhook ADD COLUMN sealed text, ADD COLUMN format text NOT NULL DEFAULT 'standard', ADD COLUMN audience text,
                        ADD COLUMN digest_from timestamptz, ADD COLUMN risk_at timestamptz
    """,
    # Whom others were told of as being at risk, so that they are told once in a while.
    """
    CREATE TABLE member_risk (
        tenant     text NOT NULL,
        member_id  text NOT NULL,
        told_at    timestamptz NOT NULL,
        PRIMARY KEY (tenant, member_id)
    )
    """,
    "CREATE INDEX member_risk_by_age ON member_risk (told_at)",
    # As it was, with what a device was before an operator's word.
    """
    CREATE OR REPLACE FUNCTION tell_device() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE told jsonb := jsonb_build_object('device_id', NEW.id, 'change', 'new', 'label', NEW.label);
    BEGIN
        IF TG_OP = 'UPDATE' THEN
            IF NEW.merged_into IS DISTINCT FROM OLD.merged_into THEN
                told := told || '{"change": "merged"}';
            ELSIF NEW.forgotten_at IS NOT NULL AND OLD.forgotten_at IS NULL THEN
                told := told || '{"change": "forgotten"}';
            ELSE
                told := told || jsonb_build_object('change', NEW.access, 'was', OLD.access);
            END IF;
        END IF;
        INSERT INTO event (tenant, kind, member_id, body) VALUES (NEW.tenant, 'device_changed', NEW.member_id, told);
        RETURN NULL;
    END $$
    """,
)


def upgrade() -> None:
    """Add what is new; the release before goes on with the webhooks that it made."""
    for statement in STATEMENTS:
        op.execute(statement)
