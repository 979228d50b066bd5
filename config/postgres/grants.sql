-- The role under which `accessguard serve` works, with no more than it needs. Run it as the schema's owner, who is the one
-- that runs `accessguard migrate`, and again after each `migrate`: what is granted already stays as it is.
--
--   psql "$OWNER_URL" -v ON_ERROR_STOP=1 -f config/postgres/grants.sql
--   psql "$OWNER_URL" -c "\password accessguard_app"
--
-- Then ACCESSGUARD_DATABASE_URL names this role. It owns nothing, makes no table, and alters none; of the append-only tables
-- it deletes no line, and of a line's time, actor, role and act it changes nothing.

BEGIN;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'accessguard_app') THEN
        CREATE ROLE accessguard_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT;
    END IF;
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO accessguard_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO accessguard_app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO accessguard_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO accessguard_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO accessguard_app;

-- What the schema says of itself is the owner's.
REVOKE INSERT, UPDATE, DELETE ON alembic_version, schema_floor FROM accessguard_app;

-- Written once. An erasure takes names out of the audit log, and a merge of two members moves what was written of one: these
-- columns, and no others.
REVOKE UPDATE, DELETE ON audit, rule_version, comment, enrolment_change FROM accessguard_app;
REVOKE UPDATE ON erasure FROM accessguard_app;
GRANT UPDATE (member_id, target_id, before, after, reason) ON audit TO accessguard_app;
GRANT UPDATE (member_id) ON comment, enrolment_change TO accessguard_app;

-- The chain of the audit log is written by its triggers alone, with their owner's rights: nobody writes another one by hand.
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON audit_chain FROM accessguard_app;
ALTER FUNCTION chain_audit() SECURITY DEFINER SET search_path = public, pg_temp;

-- What wants the owner's rights is done by functions that do nothing else: partitions by the month, retention by dropping
-- them, erasing (of append-only tables only what is a member's own, or a deleted tenant's), and the planner's samples.
ALTER FUNCTION ensure_partition(text, date) SECURITY DEFINER SET search_path = public, pg_temp;
ALTER FUNCTION drop_partition(text, text) SECURITY DEFINER SET search_path = public, pg_temp;
ALTER FUNCTION erase_rows(text, text, text, integer) SECURITY DEFINER SET search_path = public, pg_temp;
ALTER FUNCTION sample_anew() SECURITY DEFINER SET search_path = public, pg_temp;
REVOKE EXECUTE ON FUNCTION ensure_partition(text, date), drop_partition(text, text), erase_rows(text, text, text, integer),
       sample_anew() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_partition(text, date), drop_partition(text, text), erase_rows(text, text, text, integer),
      sample_anew() TO accessguard_app;

COMMIT;
