"""All that is stored about one member, table by table, in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec

from accessguard.database import Database
from accessguard.members.erasure import TABLES

PAGE: Final = 500
MOST_SMALL: Final = 10_000
"""Rows of a table that is not read in pages: enrolments, aliases, comments, of which nobody has so many."""

# What proves that a browser is a device is no information about anybody, and would let whoever reads the archive pass for it.
PAGES: Final = {
    "session": """
        SELECT to_jsonb(x) AS row FROM session x
         WHERE tenant = $1 AND member_id = $2 AND ($3::inet IS NULL OR ip = $3)
           AND ($4::jsonb IS NULL OR (started_at, id) < (($4 ->> 'started_at')::timestamptz, $4 ->> 'id'))
         ORDER BY started_at DESC, id DESC LIMIT $5
    """,
    "login_attempt": """
        SELECT to_jsonb(x) - 'identifier_hash' AS row FROM login_attempt x
         WHERE tenant = $1 AND member_id = $2 AND ($3::inet IS NULL OR ip = $3)
           AND ($4::jsonb IS NULL OR (at, id) < (($4 ->> 'at')::timestamptz, ($4 ->> 'id')::uuid))
         ORDER BY at DESC, id DESC LIMIT $5
    """,
    "activity": """
        SELECT to_jsonb(x) AS row FROM activity x
         WHERE tenant = $1 AND member_id = $2 AND ($3::inet IS NULL OR ip = $3)
           AND ($4::jsonb IS NULL OR (at, session_id) < (($4 ->> 'at')::timestamptz, $4 ->> 'session_id'))
         ORDER BY at DESC, session_id DESC LIMIT $5
    """,
    "violation": """
        SELECT to_jsonb(x) AS row FROM violation x
         WHERE tenant = $1 AND member_id = $2 AND ($3::inet IS NULL OR ip = $3)
           AND ($4::jsonb IS NULL OR (last_at, id) < (($4 ->> 'last_at')::timestamptz, ($4 ->> 'id')::uuid))
         ORDER BY last_at DESC, id DESC LIMIT $5
    """,
    "device": """
        SELECT to_jsonb(x) - '{secret_hash,previous_hash,older_hashes,secret_seed}'::text[] AS row FROM device x
         WHERE tenant = $1 AND member_id = $2 AND ($3::inet IS NULL OR last_ip = $3)
           AND ($4::jsonb IS NULL OR (last_seen_at, id) < (($4 ->> 'last_seen_at')::timestamptz, ($4 ->> 'id')::uuid))
         ORDER BY last_seen_at DESC, id DESC LIMIT $5
    """,
    "member_network": """
        SELECT to_jsonb(x) AS row FROM member_network x
         WHERE tenant = $1 AND member_id = $2 AND ($3::inet IS NULL OR ip = $3)
           AND ($4::jsonb IS NULL OR (session_id, ip) > ($4 ->> 'session_id', ($4 ->> 'ip')::inet))
         ORDER BY session_id, ip LIMIT $5
    """,
}
"""Tables of which a member may have very many rows; each statement goes on after the row $4."""

NOBODYS: Final = PAGES["login_attempt"].replace("member_id = $2", "member_id IS NULL AND $2::text IS NOT NULL")
"""Failed attempts from an address whose user name was nobody's."""

SMALL: Final = "SELECT * FROM member_rows($1, $2, $3, $4) AS row"
ABOUT: Final = """
    SELECT to_jsonb(x) - 'salt' AS row FROM audit x
     WHERE tenant = $1 AND coalesce(member_id, target_id) = $2 AND (member_id IS NOT NULL OR target_kind IN ('member', 'sessions'))
     ORDER BY at DESC, id LIMIT $3
"""

LEFT_OUT: Final = frozenset(
    {"violation_case", "challenge", "member_page", "member_search", "tally_past", "unread_member", "unread_moved"}
)
"""What is kept twice, or holds what a login needs to be finished."""


class ArchiveStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def tables(self, *, of_address: bool) -> Sequence[str]:
        """Names of what there is to read, in the order in which people ask for it."""
        if of_address:
            return [*PAGES, "unknown_user"]
        rows = await self._db.fetch(TABLES)
        small = [row["name"] for row in rows if row["of_member"] and row["name"] not in {*PAGES, *LEFT_OUT, "audit"}]
        small = [name for name in small if not name.endswith("_mark")]
        return ["member", *(name for name in small if name != "member"), *PAGES, "audit"]

    async def pages(
        self, table: str, tenant: str, member_id: str, *, ip: str | None
    ) -> AsyncIterator[Sequence[dict[str, Any]]]:
        """The rows of one of these, some at a time; never none."""
        statement = NOBODYS if table == "unknown_user" else PAGES.get(table)
        if statement is None:
            rows = await self._small(table, tenant, member_id)
            if rows:
                yield rows
            return
        after: dict[str, Any] | None = None
        while True:
            found = _plain(await self._db.fetch(statement, tenant, member_id, ip, after, PAGE))
            if found:
                yield found
            if len(found) < PAGE:
                return
            after = found[-1]

    async def _small(self, table: str, tenant: str, member_id: str) -> Sequence[dict[str, Any]]:
        if table == "audit":
            return _plain(await self._db.fetch(ABOUT, tenant, member_id, MOST_SMALL))
        return _plain(await self._db.fetch(SMALL, table, tenant, member_id, MOST_SMALL))


def _plain(rows: Sequence[Any]) -> Sequence[dict[str, Any]]:
    return [msgspec.json.decode(row["row"]) for row in rows]
