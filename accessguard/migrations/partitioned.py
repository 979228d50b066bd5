"""Indexes on partitioned tables that may be big: built partition by partition while the service writes, then attached.

CREATE INDEX CONCURRENTLY knows no partitioned tables. Its index is made for the
table alone (`ON ONLY`), which touches the catalogue, is built on each
partition beside whoever writes, and is valid once all have theirs
(PostgreSQL, section 5.12.2.2). A partition made in the meantime gets one by
itself.
"""

from __future__ import annotations

import asyncio
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from accessguard.errors import StartError

LOCK_TIMEOUT: Final = "50ms"
PAUSE_S: Final = 0.5
BUSY: Final = "55P03"
"""SQLSTATE lock_not_available (PostgreSQL, appendix A)."""

# Name: its table, its columns. In the order of the lists of operators, which read them from either end, by what they are
# narrowed to.
INDEXES: Final = {
    "violation_by_code": ("violation", "tenant, code, last_at, id"),
    "violation_by_cause": ("violation", "tenant, rule_id, last_at, id"),
    "violation_by_resolution": ("violation", "tenant, resolution, last_at, id"),
}

VALID: Final = text("SELECT coalesce(bool_or(indisvalid), false) FROM pg_index WHERE indexrelid = to_regclass(:name)")
# Partitions without an index of this one's, and what is left of one whose building was cut off.
LACKING: Final = text("""
    SELECT c.relname AS part, to_regclass(c.relname || :ending) IS NOT NULL AS begun,
           coalesce((SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(c.relname || :ending)), false) AS valid
      FROM pg_inherits p JOIN pg_class c ON c.oid = p.inhrelid
     WHERE p.inhparent = CAST(:table AS regclass)
       AND NOT EXISTS (SELECT FROM pg_index i JOIN pg_inherits a ON a.inhrelid = i.indexrelid
                        WHERE i.indrelid = p.inhrelid AND a.inhparent = to_regclass(:name))
     ORDER BY c.relname
""")


async def build_partitioned(connection: AsyncConnection, *, until: float) -> None:
    """Build each of INDEXES that is not whole, on a connection that commits by itself and that alone builds.

    A table that is in use all the time is tried for until `until` (loop time):
    then StartError. What is done stays done.
    """
    for name, (table, columns) in INDEXES.items():
        if not await connection.scalar(VALID, {"name": name}):
            await _patiently(connection, f"CREATE INDEX IF NOT EXISTS {name} ON ONLY {table} ({columns})", until)
            await _build_parts(connection, name, table, columns, until)


async def _build_parts(connection: AsyncConnection, name: str, table: str, columns: str, until: float) -> None:
    ending = name.removeprefix(table)
    for part, begun, valid in await connection.execute(LACKING, {"name": name, "table": table, "ending": ending}):
        own = f"{part}{ending}"
        if begun and not valid:
            await connection.execute(text(f"DROP INDEX CONCURRENTLY {own}"))
        if not valid:
            await connection.execute(text(f"CREATE INDEX CONCURRENTLY {own} ON {part} ({columns})"))
        await _patiently(connection, f"ALTER INDEX {name} ATTACH PARTITION {own}", until)


async def _patiently(connection: AsyncConnection, statement: str, until: float) -> None:
    """Do what needs a table's lock for a moment: whoever wants it behind us waits 50 ms at most, and we try again."""
    await connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    try:
        while not await _done(connection, statement):
            if asyncio.get_running_loop().time() > until:
                raise StartError(
                    "A table was in use all the time: run `accessguard migrate` again, with a longer --wait."
                )
            await asyncio.sleep(PAUSE_S)
    finally:
        await connection.execute(text("RESET lock_timeout"))


async def _done(connection: AsyncConnection, statement: str) -> bool:
    try:
        await connection.execute(text(statement))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != BUSY:
            raise
        return False
    return True
