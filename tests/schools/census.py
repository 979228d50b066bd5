"""What a school has, down to the last row of every table and every key: equal before and after means that nothing of it was changed."""

from __future__ import annotations

import hashlib

import asyncpg
from redis.asyncio import Redis

TABLES = """
    SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1
"""


class Census:
    """Reads a whole school; made for one database and one Valkey."""

    def __init__(self, connection: asyncpg.Connection, valkey: Redis, tables: list[str]) -> None:
        self.tables = tables
        self._connection = connection
        self._valkey = valkey
        each = [f"SELECT '{name}', {_digest(name, 'tenant')}" for name in tables]  # names are the catalogue's own
        self._statement = " UNION ALL ".join([*each, f"SELECT 'tenant', {_digest('tenant', 'id')}"])

    @classmethod
    async def of(cls, connection: asyncpg.Connection, valkey: Redis) -> Census:
        """One for every table that has a column `tenant`."""
        return cls(connection, valkey, [row[0] for row in await connection.fetch(TABLES)])

    async def take(self, tenant: str) -> dict[str, str]:
        """A digest for each table, and for all keys; empty where there is nothing."""
        rows = await self._connection.fetch(self._statement, tenant)
        keys = sorted([key async for key in self._valkey.scan_iter(match=f"*{tenant}*", count=10_000)])
        kept = [await self._valkey.dump(key) for key in keys]
        said = repr((keys, kept)).encode()
        return {row[0]: row[1] for row in rows} | {"valkey": hashlib.sha256(said).hexdigest() if keys else ""}


def _digest(table: str, column: str) -> str:
    return f"(SELECT coalesce(string_agg(md5(t::text), '' ORDER BY md5(t::text)), '') FROM {table} t WHERE t.{column} = $1)"
