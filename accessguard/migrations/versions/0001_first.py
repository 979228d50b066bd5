"""Tenants, members, devices, sessions, attempts, rules, violations, marks, audit."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    # One global sequence: every change that can alter a verdict takes the next
    # number for its member or tenant, so "what changed since" is an index range.
    "CREATE SEQUENCE generation",
    """
    CREATE TABLE tenant (
        id          text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 128),
        name        text NOT NULL,
        settings    jsonb NOT NULL DEFAULT '{}',
        generation  bigint NOT NULL DEFAULT nextval('generation'),
        created_at  timestamptz NOT NULL
    )
    """,
    "CREATE INDEX tenant_generation ON tenant (generation)",
    """
    CREATE TABLE member (
        tenant                 text NOT NULL REFERENCES tenant ON DELETE CASCADE,
        id                     text NOT NULL CHECK (length(id) BETWEEN 1 AND 128),
        name                   text NOT NULL DEFAULT '',
        email                  text,
        phone                  text,
        tags                   text[] NOT NULL DEFAULT '{}',
        locale                 text,
        time_zone              text,
        staff                  boolean NOT NULL DEFAULT false,
        note                   text NOT NULL DEFAULT '',
        checks_enabled         boolean NOT NULL DEFAULT true,
        checks_disabled_until  timestamptz,
        checks_reason          text,
        first_access_at        timestamptz,
        last_access_at         timestamptz,
        last_activity_at       timestamptz,
        last_activity_kind     text,
        last_activity_session  text,
        generation             bigint NOT NULL DEFAULT nextval('generation'),
        created_at             timestamptz NOT NULL
    )
    """,
    "CREATE INDEX member_generation ON member (generation)",
    "CREATE INDEX member_by_activity ON member (tenant, (coalesce(last_activity_at, '-infinity'::timestamptz)), id)",
    "CREATE INDEX member_by_first_access ON member (tenant, (coalesce(first_access_at, '-infinity'::timestamptz)), id)",
    "CREATE INDEX member_by_last_access ON member (tenant, (coalesce(last_access_at, '-infinity'::timestamptz)), id)",
    "CREATE INDEX member_by_name ON member (tenant, name, id)",
    # A planner that has no statistics yet takes any index that begins with the tenant for good enough, the newest first.
    # So keys are made last, and those of devices and sessions begin with the id.
    "ALTER TABLE member ADD PRIMARY KEY (tenant, id)",
    """
    CREATE TABLE member_alias (
        tenant     text NOT NULL,
        member_id  text NOT NULL,
        email      text NOT NULL,
        at         timestamptz NOT NULL,
        PRIMARY KEY (tenant, member_id, email),
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE device (
        tenant           text NOT NULL,
        id               uuid NOT NULL,
        member_id        text NOT NULL,
        browser_id       uuid NOT NULL,
        secret_hash      bytea NOT NULL,
        previous_hash    bytea,
        rotated_at       timestamptz NOT NULL,
        name             text,
        label            text NOT NULL,
        browser          text NOT NULL,
        browser_version  text,
        os               text NOT NULL,
        device_class     text NOT NULL,
        model            text,
        access           text NOT NULL DEFAULT 'default' CHECK (access IN ('default', 'allowed', 'blocked')),
        access_reason    text,
        access_by        text,
        access_at        timestamptz,
        first_seen_at    timestamptz NOT NULL,
        last_seen_at     timestamptz NOT NULL,
        last_ip          inet,
        admitted_at      timestamptz,
        forgotten_at     timestamptz,
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    "CREATE INDEX device_by_browser ON device (browser_id, tenant)",
    "CREATE INDEX device_by_member ON device (tenant, member_id, last_seen_at DESC, id)",
    "ALTER TABLE device ADD PRIMARY KEY (id, tenant)",
    """
    CREATE TABLE session (
        tenant              text NOT NULL,
        id                  text NOT NULL CHECK (length(id) BETWEEN 1 AND 128),
        member_id           text NOT NULL,
        device_id           uuid,
        device_class        text NOT NULL,
        app                 text,
        host                text,
        method              text NOT NULL,
        ip                  inet,
        user_agent          text,
        started_at          timestamptz NOT NULL,
        expires_at          timestamptz NOT NULL,
        last_activity_at    timestamptz,
        last_activity_kind  text,
        last_resource       text,
        ended_at            timestamptz,
        end_reason          text,
        ended_by            text,
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX session_by_member ON session (tenant, member_id, started_at DESC, id)",
    "CREATE INDEX session_live ON session (tenant, member_id) WHERE ended_at IS NULL",
    "ALTER TABLE session ADD PRIMARY KEY (id, tenant)",
    """
    CREATE TABLE login_attempt (
        tenant           text NOT NULL,
        id               uuid NOT NULL,
        at               timestamptz NOT NULL,
        member_id        text,
        identifier_hash  bytea,
        outcome          text NOT NULL,
        failure_reason   text,
        method           text NOT NULL,
        app              text,
        host             text,
        ip               inet,
        user_agent       text,
        browser          text,
        os               text,
        device_class     text,
        device_id        uuid,
        device_new       boolean NOT NULL DEFAULT false,
        device_token     text NOT NULL,
        session_id       text,
        decision         text NOT NULL,
        code             text,
        rule_id          uuid,
        rule_version     integer,
        exempt           boolean NOT NULL DEFAULT false,
        degraded         boolean NOT NULL DEFAULT false,
        PRIMARY KEY (tenant, id, at)
    ) PARTITION BY RANGE (at)
    """,
    "CREATE INDEX login_attempt_by_member ON login_attempt (tenant, member_id, at DESC, id)",
    "CREATE TABLE login_attempt_default PARTITION OF login_attempt DEFAULT",
    """
    CREATE TABLE login_key (
        tenant       text NOT NULL,
        attempt_id   uuid NOT NULL,
        fingerprint  bytea NOT NULL,
        salt         bytea NOT NULL,
        answer       jsonb NOT NULL,
        at           timestamptz NOT NULL,
        PRIMARY KEY (tenant, attempt_id)
    )
    """,
    "CREATE INDEX login_key_by_age ON login_key (at)",
    """
    CREATE TABLE activity (
        tenant      text NOT NULL,
        member_id   text NOT NULL,
        session_id  text NOT NULL,
        at          timestamptz NOT NULL,
        kind        text NOT NULL,
        resource    text,
        product_id  text,
        ip          inet,
        PRIMARY KEY (tenant, session_id, at)
    ) PARTITION BY RANGE (at)
    """,
    "CREATE INDEX activity_by_member ON activity (tenant, member_id, at DESC, session_id)",
    "CREATE TABLE activity_default PARTITION OF activity DEFAULT",
    """
    CREATE TABLE rule (
        tenant      text NOT NULL REFERENCES tenant ON DELETE CASCADE,
        id          uuid NOT NULL,
        version     integer NOT NULL,
        kind        text NOT NULL,
        body        jsonb NOT NULL,
        created_at  timestamptz NOT NULL,
        updated_at  timestamptz NOT NULL,
        deleted_at  timestamptz,
        PRIMARY KEY (tenant, id)
    )
    """,
    """
    CREATE TABLE rule_version (
        tenant   text NOT NULL,
        rule_id  uuid NOT NULL,
        version  integer NOT NULL,
        body     jsonb NOT NULL,
        at       timestamptz NOT NULL,
        actor    text NOT NULL,
        reason   text,
        deleted  boolean NOT NULL DEFAULT false,
        PRIMARY KEY (tenant, rule_id, version),
        FOREIGN KEY (tenant, rule_id) REFERENCES rule ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE violation (
        tenant        text NOT NULL,
        id            uuid NOT NULL,
        code          text NOT NULL,
        rule_id       uuid,
        rule_version  integer,
        mode          text NOT NULL,
        effect        text NOT NULL,
        member_id     text NOT NULL,
        session_id    text,
        device_id     uuid,
        ip            inet,
        first_at      timestamptz NOT NULL,
        last_at       timestamptz NOT NULL,
        hits          bigint NOT NULL,
        details       jsonb NOT NULL DEFAULT '{}',
        resolution    text NOT NULL DEFAULT 'open',
        note          text NOT NULL DEFAULT '',
        PRIMARY KEY (tenant, id, first_at)
    ) PARTITION BY RANGE (first_at)
    """,
    "CREATE INDEX violation_by_time ON violation (tenant, last_at DESC, id)",
    "CREATE INDEX violation_by_member ON violation (tenant, member_id, last_at DESC, id)",
    "CREATE TABLE violation_default PARTITION OF violation DEFAULT",
    # The open case of a (member, rule, subject): where the next hit is folded in.
    """
    CREATE TABLE violation_case (
        tenant        text NOT NULL,
        member_id     text NOT NULL,
        cause         text NOT NULL,
        subject       text NOT NULL,
        violation_id  uuid NOT NULL,
        first_at      timestamptz NOT NULL,
        last_at       timestamptz NOT NULL,
        PRIMARY KEY (tenant, member_id, cause, subject)
    )
    """,
    """
    CREATE TABLE read_mark (
        tenant        text NOT NULL,
        violation_id  uuid NOT NULL,
        reader        text NOT NULL,
        hits          bigint NOT NULL,
        read_at       timestamptz NOT NULL,
        PRIMARY KEY (tenant, violation_id, reader)
    )
    """,
    """
    CREATE TABLE audit (
        tenant       text NOT NULL,
        id           uuid NOT NULL,
        at           timestamptz NOT NULL,
        actor        text NOT NULL,
        role         text NOT NULL,
        action       text NOT NULL,
        target_kind  text NOT NULL,
        target_id    text NOT NULL,
        before       jsonb,
        after        jsonb,
        reason       text,
        PRIMARY KEY (tenant, id)
    )
    """,
    "CREATE INDEX audit_by_time ON audit (tenant, at DESC, id)",
    """
    CREATE TABLE idempotency (
        tenant       text NOT NULL,
        caller       text NOT NULL,
        key          text NOT NULL,
        fingerprint  bytea NOT NULL,
        made_id      uuid NOT NULL,
        at           timestamptz NOT NULL,
        PRIMARY KEY (tenant, caller, key)
    )
    """,
    "CREATE INDEX idempotency_by_age ON idempotency (at)",
    # A month's partition of the three big tables; safe to call twice and from two workers.
    """
    CREATE FUNCTION ensure_partition(parent text, month date) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE child text := parent || '_' || to_char(month, 'YYYYMM');
    BEGIN
        IF to_regclass(child) IS NULL THEN
            EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                           child, parent, month, (month + interval '1 month')::date);
        END IF;
    END $$
    """,
    # Write or extend violations: one call from the login's transaction and one from a refused check.
    # A case goes on while its silences are shorter than `quiet`; after one, a new case begins.
    """
    CREATE FUNCTION record_violations(of_tenant text, found jsonb, quiet interval)
    RETURNS TABLE (id uuid, member_id text, cause text, subject text)
    LANGUAGE sql VOLATILE AS $$
        WITH asked AS (
            SELECT * FROM jsonb_to_recordset(found) AS v(
                id uuid, cause text, subject text, code text, rule_id uuid, rule_version integer, mode text, effect text,
                member_id text, session_id text, device_id uuid, ip text, at timestamptz, hits bigint, details jsonb)
             ORDER BY v.member_id, v.cause, v.subject
        ), kept AS (
            INSERT INTO violation_case AS c (tenant, member_id, cause, subject, violation_id, first_at, last_at)
            SELECT of_tenant, a.member_id, a.cause, a.subject, a.id, a.at, a.at FROM asked a
                ON CONFLICT (tenant, member_id, cause, subject) DO UPDATE
               SET violation_id = CASE WHEN c.last_at < excluded.last_at - quiet THEN excluded.violation_id ELSE c.violation_id END,
                   first_at = CASE WHEN c.last_at < excluded.last_at - quiet THEN excluded.first_at ELSE c.first_at END,
                   last_at = greatest(c.last_at, excluded.last_at)
            RETURNING c.member_id, c.cause, c.subject, c.violation_id, c.first_at
        ), written AS (
        INSERT INTO violation AS w (tenant, id, code, rule_id, rule_version, mode, effect, member_id, session_id, device_id, ip,
                                    first_at, last_at, hits, details)
        SELECT of_tenant, k.violation_id, a.code, a.rule_id, a.rule_version, a.mode, a.effect, a.member_id, a.session_id, a.device_id,
               a.ip::inet, k.first_at, a.at, a.hits, a.details
          FROM asked a JOIN kept k ON (a.member_id, a.cause, a.subject) = (k.member_id, k.cause, k.subject)
            ON CONFLICT (tenant, id, first_at) DO UPDATE
           SET hits = w.hits + excluded.hits,
               last_at = greatest(w.last_at, excluded.last_at),
               rule_version = excluded.rule_version,
               mode = excluded.mode,
               effect = excluded.effect,
               session_id = coalesce(excluded.session_id, w.session_id),
               ip = coalesce(excluded.ip, w.ip),
               details = excluded.details
        )
        SELECT k.violation_id, k.member_id, k.cause, k.subject FROM kept k
    $$
    """,
)


def upgrade() -> None:
    """Create the first schema, in one transaction."""
    for statement in STATEMENTS:
        op.execute(statement)
