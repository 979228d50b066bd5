"""The directory of members: what they are found by, and how their enrolments stand, so that an index answers."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

STATEMENTS = (
    # What is searched for in a text and among tags, as numbers of a tenant: each three characters, each first letter of a word
    # (with the space before it), each one and two from U+2E80 on, where a character is a word; each tag. Of numbers, so that
    # no extension is needed and no locale changes what a letter is.
    # What two texts have in common by chance is sorted out by whoever asks.
    r"""
    CREATE FUNCTION member_grams(of_tenant text, words text, tags text[]) RETURNS integer[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
    DECLARE
        found integer[] := '{}';
        salt text := of_tenant || E'\n';
        line text;
        gram text;
        tag text;
    BEGIN
        FOREACH line IN ARRAY string_to_array(words, E'\n') LOOP
            FOR n IN 1 .. length(line) LOOP
                gram := substr(line, n, 3);
                IF length(gram) = 3 THEN
                    found := found || hashtext(salt || gram);
                END IF;
                IF ascii(gram) = 32 OR ascii(gram) >= 11904 THEN
                    found := found || hashtext(salt || left(gram, 2));
                END IF;
                IF ascii(gram) >= 11904 THEN
                    found := found || hashtext(salt || left(gram, 1));
                END IF;
            END LOOP;
        END LOOP;
        FOREACH tag IN ARRAY tags LOOP
            found := found || hashtext(salt || E'\n' || tag);
        END LOOP;
        RETURN found;
    END $$
    """,
    # Beside the member, whose row moves with every login and must not take such an index along. `due_at` is when the passing of
    # time may change how the member stands; NULL: never. The key begins with the member, as those of devices and sessions do.
    """
    CREATE TABLE member_search (
        member_id  text NOT NULL,
        tenant     text NOT NULL,
        words      text NOT NULL,
        tags       text[] NOT NULL DEFAULT '{}',
        due_at     timestamptz,
        FOREIGN KEY (tenant, member_id) REFERENCES member ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX member_search_grams ON member_search USING gin (member_grams(tenant, words, tags))
      WITH (gin_pending_list_limit = 512)
    """,
    "CREATE INDEX member_search_due ON member_search (due_at, tenant) WHERE due_at IS NOT NULL",
    "ALTER TABLE member_search ADD PRIMARY KEY (member_id, tenant)",
    # `filed_as` is a hash of what was taken into the directory, whoever wrote it; where it is another, the member waits.
    # `standing` is as of then, good until `due_at`: it narrows a list, and never decides.
    "ALTER TABLE member ADD COLUMN filed_as bigint, ADD COLUMN standing smallint",
    # The `updated_at` that the directory knows of.
    "ALTER TABLE enrolment ADD COLUMN filed_at timestamptz",
)


def upgrade() -> None:
    """Add what is new; what is there keeps its meaning for the release before."""
    for statement in STATEMENTS:
        op.execute(statement)
