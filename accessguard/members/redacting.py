"""Many members taken out of the audit log in one pass: each of its lines is read once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.database import Database, Row
from accessguard.members.redaction import Index, Names

PAGE: Final = 2_000
SLICE: Final = 200
"""Lines that are looked through at once: some 4 ms."""

# A page of the log, the newest first.
LISTED: Final = """
    SELECT id, at, target_kind, target_id, to_jsonb(audit) ->> 'member_id' AS member_id, before, after, reason FROM audit
     WHERE tenant = $1 AND ($2::timestamptz IS NULL OR (at <= $2 AND (at < $2 OR id > $3::uuid)))
     ORDER BY at DESC, id LIMIT $4
"""
REDACT: Final = """
    UPDATE audit a SET target_id = r.target_id, before = r.before, after = r.after, reason = r.reason
      FROM jsonb_to_recordset($2) AS r(id uuid, target_id text, before jsonb, after jsonb, reason text)
     WHERE a.tenant = $1 AND a.id = r.id
"""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One member: what it is called, what the log may be about (`kind:id`), and what is said in its place."""

    member_id: str
    names: Names
    targets: Sequence[str]
    as_: str


class Redaction:
    """Of some members of a tenant. Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database, tenant: str, subjects: Sequence[Subject]) -> None:
        self._db = db
        self._tenant = tenant
        self._members = {each.member_id: each for each in subjects}
        self._targets = {target: each for each in subjects for target in each.targets}
        self._index = Index({each.member_id: each.names for each in subjects})

    async def page(self, after: tuple[datetime, UUID] | None) -> tuple[datetime, UUID] | None:
        """Go through one page of the log; where the next one begins, None after the last."""
        rows = await self._db.fetch(LISTED, self._tenant, *(after or (None, None)), PAGE)
        changed: list[Mapping[str, Any]] = []
        for begin in range(0, len(rows), SLICE):
            changed += [line for row in rows[begin : begin + SLICE] if (line := self._without(row)) is not None]
            await asyncio.sleep(0)
        if changed:
            await self._db.row(REDACT, self._tenant, changed)
        return (rows[-1]["at"], rows[-1]["id"]) if len(rows) == PAGE else None

    def _without(self, row: Row) -> Mapping[str, Any] | None:
        """The line as it may stay; None where it names nobody of them."""
        about = self._targets.get(f"{row['target_kind']}:{row['target_id']}") or self._members.get(row["member_id"])
        if about is not None:
            return {"id": row["id"], "target_id": about.as_, "before": None, "after": None, "reason": None}
        said = {name: _plain(row[name]) for name in ("before", "after")} | {"reason": row["reason"]}
        named = sorted(self._index.named("\n".join((row["target_id"], *_texts(said)))))
        if not named:
            return None
        target = row["target_id"]
        for each in (self._members[member_id] for member_id in named):
            target = each.as_ if each.names.is_one(target) else target
            said = {name: each.names.out_of(value) for name, value in said.items()}
        return {"id": row["id"], "target_id": target, **said}


def _plain(value: Any) -> Any:
    return None if value is None else msgspec.json.decode(value)


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for each in value.values():
                yield from _texts(each)
        case list():
            for each in value:
                yield from _texts(each)
