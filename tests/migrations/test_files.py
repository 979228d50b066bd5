"""Every migration file: only what a service can run beside."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from accessguard import migrations
from accessguard.migrations.indexes import INDEXES
from tests.migrations.files import RELEASED_AS_THEY_ARE, faults, plain

FILES = sorted((Path(migrations.__file__).parent / "versions").glob("*.py"))


def read(file: Path) -> ModuleType:
    """One file as a module."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_migration_holds_up_nobody(file):
    """It adds, touching the catalogue alone; what was released before there were rules is listed by name."""
    module = read(file)
    excused = RELEASED_AS_THEY_ARE.get(module.revision, ())
    statements = [each for each in module.STATEMENTS if not plain(each).startswith(excused or "\0")]

    assert list(faults(statements)) == []
    assert len(module.STATEMENTS) - len(statements) == len(excused)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_runs_its_statements_and_nothing_else(file):
    """What the rules look at is all that there is: `upgrade` has no statement of its own."""
    source = file.read_text().partition("def upgrade")[2].partition("def downgrade")[0]

    assert source.count("op.") == 1
    assert "for statement in STATEMENTS:\n        op.execute(statement)\n" in source


def test_revisions_are_one_line_of_numbers():
    """Four digits, each after the one before, so that their order is that of their texts."""
    told = [(read(file).down_revision, read(file).revision) for file in FILES]

    assert [before for before, _ in told] == [None, *(revision for _, revision in told[:-1])]
    assert all(re.fullmatch(r"\d{4}", revision) for _, revision in told)
    assert list(migrations.revisions()) == sorted(revision for _, revision in told)


def test_indexes_beside_the_service_are_on_tables_that_can_have_them():
    """CREATE INDEX CONCURRENTLY cannot be run on a partitioned table."""
    partitioned = {"login_attempt", "activity", "violation"}

    assert {columns.split()[0] for columns in INDEXES.values()} & partitioned == set()


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE member ADD COLUMN x text NOT NULL",
        "ALTER TABLE member ADD COLUMN x timestamptz NOT NULL DEFAULT now()",
        "ALTER TABLE member ADD COLUMN x timestamptz DEFAULT clock_timestamp()",
        "ALTER TABLE member ADD COLUMN x uuid DEFAULT gen_random_uuid()",
        "ALTER TABLE member ADD COLUMN x bigint GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE member ADD COLUMN x text CHECK (x <> '')",
        "ALTER TABLE member ADD COLUMN x text UNIQUE",
        "ALTER TABLE member ADD COLUMN x uuid REFERENCES device",
        "ALTER TABLE member ADD COLUMN x text, ADD COLUMN y text NOT NULL",
        "ALTER TABLE member ALTER COLUMN name TYPE varchar(10)",
        "ALTER TABLE member ALTER COLUMN email SET NOT NULL",
        "ALTER TABLE member RENAME COLUMN name TO title",
        "ALTER TABLE member RENAME TO student",
        "ALTER TABLE member DROP COLUMN note",
        "ALTER TABLE member ADD CONSTRAINT named CHECK (name <> '')",
        "ALTER TABLE member VALIDATE CONSTRAINT named",
        "ALTER TABLE login_attempt ADD PRIMARY KEY (tenant, id, at)",
        "DROP TABLE pass",
        "CREATE INDEX member_by_note ON member (tenant, note)",
        "CREATE UNIQUE INDEX member_by_note ON member (tenant, note)",
        "CREATE TRIGGER told BEFORE INSERT ON member EXECUTE FUNCTION tell()",
        "UPDATE member SET name = ''",
        "DELETE FROM member",
        "INSERT INTO member SELECT * FROM other",
        "LOCK TABLE member",
        "TRUNCATE member",
        "VACUUM FULL member",
        "CLUSTER member",
        "REINDEX TABLE member",
        "DO $$ BEGIN DELETE FROM member; END $$",
    ],
)
def test_what_would_hold_up_the_service_is_found(statement):
    """Each of these rewrites or reads a table under its lock, takes something away, or writes the service's rows."""
    assert list(faults([statement]))


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param(["ALTER TABLE member ADD COLUMN x text"], id="a column"),
        pytest.param(["ALTER TABLE member ADD COLUMN x double precision, ADD COLUMN y uuid[]"], id="two columns"),
        pytest.param(["ALTER TABLE member ADD COLUMN x text[] NOT NULL DEFAULT '{}'"], id="a constant"),
        pytest.param(["ALTER TABLE member ADD CONSTRAINT c CHECK (note <> '') NOT VALID"], id="not checked yet"),
        pytest.param(["CREATE TABLE n (a text)", "CREATE INDEX i ON n (a)", "INSERT INTO n VALUES ('')"], id="new"),
        pytest.param(["ALTER TABLE member DROP COLUMN x", "UPDATE schema_floor SET revision = '0009'"], id="the floor"),
    ],
)
def test_what_a_service_can_run_beside_is_let_pass(statements):
    """The rules leave room for what is needed."""
    assert list(faults(statements)) == []


def test_one_file_does_not_change_many_tables():
    """Each more is one more wait with the others' locks in its hands."""
    statements = [f"ALTER TABLE {name} ADD COLUMN x text" for name in ("member", "device", "session")]

    assert list(faults(statements)) == ["changes more than 2 tables: device, member, session"]
