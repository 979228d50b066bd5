"""The chain of the audit log: each entry's digest, and a hash over the record before; see docs/decisions/0027-audit-chain.md."""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

STATEMENTS = (
    # Drawn anew whenever the entry is written or reworded: with the one before gone, nobody can try names against an old digest.
    "ALTER TABLE audit ADD COLUMN salt uuid",
    # Append-only. `form` is that of digest and hash; `entries` how many there were before the chain (kind "began", once).
    """
    CREATE TABLE audit_chain (
        tenant    text NOT NULL,
        seq       bigint NOT NULL,
        form      smallint NOT NULL,
        kind      text NOT NULL,
        at        timestamptz NOT NULL,
        entry_id  uuid,
        entries   bigint,
        digest    bytea,
        hash      bytea NOT NULL,
        PRIMARY KEY (tenant, seq)
    )
    """,
    "CREATE INDEX audit_chain_entry ON audit_chain (tenant, entry_id, seq)",
    # The head that was last told to the log of the service.
    """
    CREATE TABLE audit_head (
        tenant  text NOT NULL PRIMARY KEY,
        seq     bigint NOT NULL,
        hash    bytea NOT NULL,
        at      timestamptz NOT NULL
    )
    """,
    # Form 1, below and in events/links.py: each field as its length in bytes, a colon and its text, a hyphen for none.
    """
    CREATE FUNCTION audit_field(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
        SELECT coalesce(octet_length(value)::text || ':' || value, '-')
    $$
    """,
    """
    CREATE FUNCTION audit_moment(at timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
        SELECT audit_field((extract(epoch FROM at) * 1000000)::bigint::text)
    $$
    """,
    """
    CREATE FUNCTION audit_digest(entry audit) RETURNS bytea LANGUAGE sql STABLE AS $$
        SELECT sha256(convert_to('accessguard audit entry 1 '
            || audit_field(entry.salt::text) || audit_field(entry.tenant) || audit_field(entry.id::text) || audit_moment(entry.at)
            || audit_field(entry.actor) || audit_field(entry.role) || audit_field(entry.action) || audit_field(entry.target_kind)
            || audit_field(entry.target_id) || audit_field(entry.before::text) || audit_field(entry.after::text)
            || audit_field(entry.reason) || audit_field(entry.member_id), 'UTF8'))
    $$
    """,
    """
    CREATE FUNCTION salt_audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.salt := gen_random_uuid();
        RETURN NEW;
    END $$
    """,
    # Whether `after` is `before` with words taken out, as an erasure does.
    """
    CREATE FUNCTION audit_taken_out(before text, after text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
        SELECT after IS NULL OR coalesce(after = before OR before LIKE
            replace(replace(replace(replace(after, '\\', '\\\\'), '%', '\\%'), '_', '\\_'), '[erased]', '%'), false)
    $$
    """,
    # What became of an entry: another member's ("moved"), words taken out ("redacted"), or what the service never does.
    """
    CREATE FUNCTION audit_rewording(before audit, after audit) RETURNS text LANGUAGE sql STABLE AS $$
        SELECT CASE
            WHEN (before.tenant, before.id, before.at, before.actor, before.role, before.action, before.target_kind)
                 IS DISTINCT FROM (after.tenant, after.id, after.at, after.actor, after.role, after.action, after.target_kind)
                THEN 'rewritten'
            WHEN (before.target_id, before.before, before.after, before.reason)
                 IS NOT DISTINCT FROM (after.target_id, after.before, after.after, after.reason)
                THEN 'moved'
            WHEN (after.member_id IS NULL OR after.member_id IS NOT DISTINCT FROM before.member_id)
                 AND (after.target_id = before.target_id OR after.target_id ~ '^erased-[0-9a-f]{32}$')
                 AND audit_taken_out(before.before::text, after.before::text)
                 AND audit_taken_out(before.after::text, after.after::text)
                 AND audit_taken_out(before.reason, after.reason)
                THEN 'redacted'
            ELSE 'rewritten'
        END
    $$
    """,
    # Whoever appends holds the tenant's lock to the end of the transaction, so it has to be the last thing that one does.
    # 1095172116 is 0x41470014 ("AG" 20); any constant works, as long as every release takes the same.
    """
    CREATE FUNCTION extend_audit_chain(of_tenant text, what text, of_entry uuid, held bigint, of_digest bytea) RETURNS void
    LANGUAGE plpgsql AS $$
    DECLARE before bytea; place bigint; moment timestamptz;
    BEGIN
        PERFORM pg_advisory_xact_lock(1095172116, hashtext(of_tenant));
        SELECT seq, hash INTO place, before FROM audit_chain WHERE tenant = of_tenant ORDER BY seq DESC LIMIT 1;
        place := coalesce(place, 0) + 1;
        moment := clock_timestamp();
        INSERT INTO audit_chain (tenant, seq, form, kind, at, entry_id, entries, digest, hash)
        VALUES (of_tenant, place, 1, what, moment, of_entry, held, of_digest, sha256(convert_to('accessguard audit chain 1 '
            || audit_field(encode(before, 'hex')) || audit_field(of_tenant) || audit_field(place::text) || audit_field(what)
            || audit_moment(moment) || audit_field(of_entry::text) || audit_field(held::text)
            || audit_field(encode(of_digest, 'hex')), 'UTF8')));
    END $$
    """,
    """
    CREATE FUNCTION chain_audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            PERFORM extend_audit_chain(NEW.tenant, 'written', NEW.id, NULL, audit_digest(NEW));
        ELSE
            PERFORM extend_audit_chain(NEW.tenant, audit_rewording(OLD, NEW), NEW.id, NULL, audit_digest(NEW));
        END IF;
        RETURN NULL;
    END $$
    """,
)


def upgrade() -> None:
    """Add what is new; the triggers are put on the table beside the service (migrations/triggers.py)."""
    for statement in STATEMENTS:
        op.execute(statement)
