"""Whether the schema still fits this worker, which may go on while later releases only add to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from accessguard.database import Database
from accessguard.errors import GuardError
from accessguard.migrations import Schema

LOOK_EVERY_S: Final = 10.0
LOG: Final = structlog.get_logger("accessguard.schema")

THERE: Final = "SELECT to_regclass($1) IS NOT NULL"
REVISION: Final = "SELECT version_num FROM alembic_version"
FLOOR: Final = "SELECT revision FROM schema_floor"


class SchemaWatch:
    """Looks now and then at what the schema says of itself; `objection` tells why a schema does not fit, None when it does."""

    def __init__(self, db: Database, objection: Callable[[Schema], str | None]) -> None:
        self._db = db
        self._objection = objection
        self.fits = True

    async def run(self) -> None:
        """Look until cancelled; while PostgreSQL is out, what was seen last holds."""
        while True:
            with contextlib.suppress(GuardError):
                await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look once, and say so in the log when that has changed. Raises GuardError(UNAVAILABLE)."""
        why = self._objection(await schema(self._db))
        before, self.fits = self.fits, why is None
        if before and why is not None:
            LOG.error("schema_unfit", why=why)
        elif not before and why is None:
            LOG.info("schema_fits")


async def schema(db: Database) -> Schema:
    """What the database says of its schema. Raises GuardError(UNAVAILABLE)."""
    return Schema(revision=await _said(db, "alembic_version", REVISION), floor=await _said(db, "schema_floor", FLOOR))


async def _said(db: Database, table: str, statement: str) -> str | None:
    found: str | None = await db.value(statement) if await db.value(THERE, table) else None
    return found
