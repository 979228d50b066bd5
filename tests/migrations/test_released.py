"""The release before on the schema of this one: what it asks for and what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from accessguard import migrations
from tests.migrations.databases import connected

RELEASED = "0002"
STATEMENTS = json.loads((Path(__file__).parent / "released" / f"{RELEASED}.json").read_text())
"""What the release with the revision 0002 sends to PostgreSQL, by the name of the constant."""

COLUMNS = """
    SELECT c.relname AS owner, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
           a.attnotnull AND NOT a.atthasdef AS wanted
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
"""
BOUNDS = """
    SELECT c.relname AS owner, k.conname AS name, pg_get_constraintdef(k.oid) AS type
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid WHERE k.connamespace = 'public'::regnamespace AND k.contype NOT IN ('n', 't')
     UNION ALL
    SELECT c.relname, i.relname, pg_get_indexdef(x.indexrelid)
      FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
     WHERE c.relnamespace = 'public'::regnamespace AND x.indisunique
"""
FUNCTIONS = """
    SELECT 'function' AS owner, p.proname AS name, pg_get_function_identity_arguments(p.oid) || pg_get_function_result(p.oid) AS type
      FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
"""


async def told(url: str, question: str) -> dict[tuple[str, str], str]:
    """What the catalogue says of each thing, by table and name."""
    async with connected(url) as connection:
        return {(row["owner"], row["name"]): row["type"] for row in await connection.fetch(question)}


@pytest.mark.slow
async def test_every_statement_of_the_release_before_can_be_planned(empty):
    """Tables, columns, types, functions and the keys of ON CONFLICT are all still what it takes them for."""
    await migrations.migrate(empty)

    async with connected(empty) as connection:
        for statement in STATEMENTS.values():
            await connection.execute(f"EXPLAIN (GENERIC_PLAN) {statement}")

    assert len(STATEMENTS) > 90


@pytest.mark.slow
async def test_what_the_release_before_writes_is_still_taken(empty):
    """Nothing that it knows has gone or changed; what came is not asked of it."""
    await migrations.migrate(empty, to=RELEASED)
    columns, bounds, functions = [await told(empty, each) for each in (COLUMNS, BOUNDS, FUNCTIONS)]

    await migrations.migrate(empty)

    tables = {table for table, _ in columns}
    assert columns.items() <= (await told(empty, COLUMNS)).items()
    assert functions.items() <= (await told(empty, FUNCTIONS)).items()
    new_bounds = dict((await told(empty, BOUNDS)).items() - bounds.items())
    assert [owner for owner, _ in new_bounds if owner in tables] == []
    wanted = await told(empty, f"SELECT * FROM ({COLUMNS}) c WHERE wanted")
    assert [place for place in wanted if place[0] in tables and place not in columns] == []
