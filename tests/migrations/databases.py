"""Databases of a test's own, on servers that it may hold up."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg

from accessguard.embedded import Embedded
from tests.data import lay_out

_numbers = itertools.count(1)


@contextlib.asynccontextmanager
async def own_stores(folder: Path) -> AsyncIterator[Embedded]:
    """Both stores until the end."""
    if not folder.exists():
        await lay_out(folder, migrated=False)
    stores = await Embedded.start(folder)
    try:
        yield stores
    finally:
        await stores.stop()


async def empty_database(stores: Embedded) -> str:
    """The address of a new database."""
    name = f"empty{next(_numbers)}"
    async with connected(stores.database_url) as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    return stores.database_url.replace("@/accessguard?", f"@/{name}?")


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for the test itself."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
