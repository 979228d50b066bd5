"""Who is signed in to the console, and the links by which somebody may be."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError

MOST: Final = 100
"""Sessions and unused links of one operator in one tenant."""
MOST_LISTED: Final = 1_000
SWEPT: Final = 100
"""Sessions over and done with that go when another one is stored."""


class ConsoleSession(msgspec.Struct, frozen=True, kw_only=True):
    """One operator in one browser, at the latest until `ends_at`."""

    tenant: str
    id: UUID
    operator: str
    role: str
    begun_at: datetime
    seen_at: datetime
    ends_at: datetime


ADD: Final = """
    WITH over AS (
        DELETE FROM console_session
         WHERE tenant = $1
           AND id = ANY(ARRAY(SELECT id FROM console_session WHERE tenant = $1 AND ends_at <= $6 ORDER BY ends_at LIMIT $9))
    )
    INSERT INTO console_session (tenant, id, operator, role, secret, begun_at, seen_at, ends_at, offered_until, token_id)
    SELECT $1, $2, $3, $4, $5, $6, $6, $7, $8, $11
     WHERE (SELECT count(*) FROM console_session WHERE tenant = $1 AND operator = $3 AND ends_at > $6) < $10
    RETURNING id
"""

# The link's secret goes and the browser's comes: a second time there is nothing to be found.
BEGIN: Final = """
    UPDATE console_session SET secret = $4, offered_until = NULL, begun_at = $5, seen_at = $5, ends_at = $6
     WHERE tenant = $1 AND id = $2 AND secret = $3 AND offered_until > $5
    RETURNING *
"""

ONE: Final = """
    SELECT * FROM console_session
     WHERE tenant = $1 AND id = $2 AND secret = $3 AND offered_until IS NULL AND ends_at > $4 AND seen_at > $5
"""

SEEN: Final = "UPDATE console_session SET seen_at = $3 WHERE tenant = $1 AND id = $2 AND seen_at < $3 RETURNING id"
END: Final = "DELETE FROM console_session WHERE tenant = $1 AND id = $2 RETURNING id"
END_ALL: Final = "DELETE FROM console_session WHERE tenant = $1 AND operator = $2 RETURNING id"
# A token of all tenants signs in to any: without a tenant, in whichever.
END_OF_OPERATOR: Final = """
    DELETE FROM console_session WHERE ($1::text IS NULL OR tenant = $1) AND operator = $2 RETURNING id
"""
END_SIGNED_IN_BY: Final = """
    DELETE FROM console_session WHERE ($1::text IS NULL OR tenant = $1) AND token_id = $2 RETURNING id
"""


LISTED: Final = """
    SELECT * FROM console_session
     WHERE tenant = $1 AND ($2::text IS NULL OR operator = $2) AND offered_until IS NULL AND ends_at > $3 AND seen_at > $4
     ORDER BY operator, begun_at DESC, id LIMIT $5
"""


class ConsoleSessionStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(
        self,
        session: ConsoleSession,
        secret: bytes,
        *,
        offered_until: datetime | None = None,
        token_id: str | None = None,
    ) -> None:
        """Store a session, or with `offered_until` a link to one; `token_id` is whose `jti` let it in.

        Raises GuardError(CONFLICT) for one more than `MOST`.
        """
        s = session
        values = (
            s.tenant,
            s.id,
            s.operator,
            s.role,
            secret,
            s.begun_at,
            s.ends_at,
            offered_until,
            SWEPT,
            MOST,
            token_id,
        )
        if await self._db.row(ADD, *values) is None:
            raise GuardError(ErrorCode.CONFLICT, f"An operator is signed in {MOST} times at most.")

    async def begin(
        self, tenant: str, session_id: UUID, *, offered: bytes, secret: bytes, now: datetime, ends_at: datetime
    ) -> ConsoleSession | None:
        """Turn a link into a session; None for one that was used, is too old or never was."""
        row = await self._db.row(BEGIN, tenant, session_id, offered, secret, now, ends_at)
        return None if row is None else _session(dict(row))

    async def one(
        self, tenant: str, session_id: UUID, secret: bytes, *, now: datetime, idle_since: datetime
    ) -> ConsoleSession | None:
        """A session that goes on; None for one that was idle since then, is over, or never was."""
        row = await self._db.row(ONE, tenant, session_id, secret, now, idle_since)
        return None if row is None else _session(dict(row))

    async def seen(self, session: ConsoleSession, *, at: datetime) -> None:
        """Note that the operator is still there."""
        await self._db.row(SEEN, session.tenant, session.id, at)

    async def end(self, session: ConsoleSession) -> None:
        """Sign out."""
        await self._db.row(END, session.tenant, session.id)

    async def end_all(self, tenant: str, operator: str) -> int:
        """Sign an operator out everywhere, unused links included; how many there were."""
        return len(await self._db.fetch(END_ALL, tenant, operator))

    async def listed(
        self, tenant: str, operator: str | None, *, now: datetime, idle_since: datetime
    ) -> Sequence[ConsoleSession]:
        """Who is signed in, of one operator (None: of all), by their names; a thousand at most."""
        rows = await self._db.fetch(LISTED, tenant, operator, now, idle_since, MOST_LISTED)
        return [_session(dict(row)) for row in rows]

    async def end_of_operator(self, tenant: str | None, operator: str) -> int:
        """The same in every tenant where `tenant` is None; how many there were."""
        return len(await self._db.fetch(END_OF_OPERATOR, tenant, operator))

    async def end_of_token(self, tenant: str | None, token_id: str) -> int:
        """Sign out whoever signed in with a token; how many there were."""
        return len(await self._db.fetch(END_SIGNED_IN_BY, tenant, token_id))


def _session(row: dict[str, object]) -> ConsoleSession:
    return msgspec.convert({name: row[name] for name in ConsoleSession.__struct_fields__}, ConsoleSession)
