"""What an operator wants to find again as it was left, such as the filters of a list; nobody else sees it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError

MOST: Final = 50
"""Preferences of one operator in one tenant."""


class Preference(msgspec.Struct, frozen=True, kw_only=True):
    """One of them by its name; `value` is empty and `updated_at` None as long as nothing was kept."""

    name: str
    value: dict[str, Any]
    updated_at: datetime | None


ONE: Final = "SELECT value, updated_at FROM preference WHERE tenant = $1 AND operator = $2 AND name = $3"

PUT: Final = """
    INSERT INTO preference (tenant, operator, name, value, updated_at)
    SELECT $1, $2, $3, $4, $5
     WHERE (SELECT count(*) FROM preference WHERE tenant = $1 AND operator = $2 AND name <> $3) < $6
        ON CONFLICT (tenant, operator, name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at
    RETURNING name
"""


class PreferenceStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def one(self, tenant: str, operator: str, name: str) -> Preference:
        """What an operator kept under a name."""
        row = await self._db.row(ONE, tenant, operator, name)
        if row is None:
            return Preference(name=name, value={}, updated_at=None)
        return Preference(name=name, value=msgspec.json.decode(row["value"]), updated_at=row["updated_at"])

    async def put(self, tenant: str, operator: str, name: str, value: dict[str, Any], *, at: datetime) -> None:
        """Keep it. Raises GuardError(CONFLICT) for one more than `MOST`."""
        if await self._db.row(PUT, tenant, operator, name, value, at, MOST) is None:
            raise GuardError(ErrorCode.CONFLICT, f"An operator keeps {MOST} preferences at most.")
