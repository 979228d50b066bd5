"""Logins that wait in Valkey while PostgreSQL is out: a stream in the order of their coming, and what is known by them.

Everything lies under one hash tag, so that one script keeps a login whole, on a
cluster too. See docs/decisions/0006-spool.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec

from accessguard.errors import ErrorCode, GuardError
from accessguard.sessions.live import Live, script
from accessguard.sessions.model import LoginRows, Replay, Snapshot

STREAM: Final = "ag:{spool}:stream"
DEAD: Final = "ag:{spool}:dead"
SYNC: Final = "ag:{spool}:sync"
KEYS: Final = (STREAM, *(f"ag:{{spool}}:{name}" for name in ("answers", "members", "versions", "pending", "sessions")))
_, ANSWERS, MEMBERS, VERSIONS, PENDING, SESSIONS = KEYS

KEEP: Final = script("spool.lua")
DRAINED: Final = script("drained.lua")

MOST: Final = 100_000
"""Logins that may wait: about 300 MB in Valkey; the next one is answered 503."""
MOST_DEAD: Final = 10_000
PAGE: Final = 200
"""Logins that are looked through at once: half a megabyte."""
SYNC_MS: Final = 5_000
"""How long a login waits for Valkey's disk: `appendfsync everysec` writes once a second, and up to two later while the
disk is busy."""

Place: TypeAlias = tuple[str, str]


class Kept(StrEnum):
    """What became of a login that was to be kept."""

    KEPT = "kept"
    AGAIN = "again"
    FULL = "full"
    MOVED = "moved"


class Spooled(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One login as it waits: the rows it writes, without a secret (the device's is there as its hash).

    `claimed` is a device that nobody here knew, taken at the word of its token. `twin`: a first login at the same time
    as another one of its browser, whose session goes on.
    """

    rows: LoginRows
    claimed: UUID | None = None
    twin: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One login on its way out; `login` is None for what cannot be read."""

    id: bytes
    raw: bytes
    login: Spooled | None


class Spool:
    """Every call raises GuardError(UNAVAILABLE) when Valkey does not answer, or has no room."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._syncing: asyncio.Task[bool] | None = None
        self._next: asyncio.Task[bool] | None = None

    async def member(self, tenant: str, member_id: str) -> tuple[int, Snapshot | None]:
        """How many logins of the member were kept, and the member as it is after them; (0, None) for none."""
        field = place(tenant, member_id)
        version, known = await asyncio.gather(
            self._live.ask("HGET", VERSIONS, field), self._live.ask("HGET", MEMBERS, field)
        )
        return int(version or 0), None if known is None else msgspec.json.decode(known, type=Snapshot)

    async def of_session(self, tenant: str, session_id: str) -> Snapshot | None:
        """The member of a session that waits, or that belongs to somebody whose logins do."""
        field = await self._live.ask("HGET", SESSIONS, place(tenant, session_id))
        known = None if field is None else await self._live.ask("HGET", MEMBERS, field)
        return None if known is None else msgspec.json.decode(known, type=Snapshot)

    async def waits(self, tenant: str, member_id: str | None, attempt_id: UUID) -> bool:
        """Whether this attempt, or another one of the member, is still here."""
        asking = [self._live.ask("HEXISTS", ANSWERS, place(tenant, str(attempt_id)))]
        if member_id is not None:
            asking.append(self._live.ask("HEXISTS", PENDING, place(tenant, member_id)))
        return any(await asyncio.gather(*asking))

    async def answered(self, tenant: str, attempt_id: UUID) -> Replay | None:
        """What was answered to an attempt that waits."""
        known = await self._live.ask("HGET", ANSWERS, place(tenant, str(attempt_id)))
        return None if known is None else msgspec.json.decode(known, type=Replay)

    async def keep(
        self, login: Spooled, answer: Replay, version: int, after: Snapshot | None
    ) -> tuple[Kept, Replay | None]:
        """Keep a login; the answer that was given before when the attempt is known.

        `version` is that of `member`, on which it was decided, `after` the
        member with this login (None: nothing of it changes).
        """
        rows = login.rows
        sessions = () if after is None else tuple(place(rows.tenant, each.id) for each in after.sessions)
        said, known = await self._live.run(
            KEEP,
            KEYS,
            (
                MOST,
                place(rows.tenant, str(rows.attempt.id)),
                msgspec.json.encode(answer),
                msgspec.json.encode(login),
                "" if after is None else place(rows.tenant, after.member_id),
                version,
                b"" if after is None else msgspec.json.encode(after),
                *sessions,
            ),
        )
        kept = Kept(said.decode())
        return kept, msgspec.json.decode(known, type=Replay) if kept is Kept.AGAIN else None

    async def synced(self) -> bool:
        """Wait until everything kept so far is on Valkey's disk; False when it keeps none.

        Calls share: one that comes while another is waited for waits for the next.
        """
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.create_task(self._sync())
            return await asyncio.shield(self._syncing)
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._sync_after(self._syncing))
        return await asyncio.shield(self._next)

    async def _sync_after(self, one: asyncio.Task[bool]) -> bool:
        await asyncio.wait({one})
        self._syncing, self._next = self._next, None
        return await self._sync()

    async def _sync(self) -> bool:
        return await self._live.on_disk(SYNC, within_ms=SYNC_MS)

    async def length(self) -> int:
        """How many wait."""
        return int(await self._live.ask("XLEN", STREAM))

    async def dead(self) -> int:
        """How many were set aside because PostgreSQL will never take them."""
        return int(await self._live.ask("LLEN", DEAD))

    async def oldest(self, most: int, *, after: bytes | None = None) -> Sequence[Entry]:
        """The ones that have waited longest, the oldest first; those behind the entry `after`, where one is named."""
        since = b"-" if after is None else b"(" + after
        found = await self._live.ask("XRANGE", STREAM, since, "+", "COUNT", most)
        return [Entry(id=entry_id, raw=fields[1], login=_read(fields[1])) for entry_id, fields in found]

    async def waiting(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Those of some neighbours that are still here."""
        found = await self._live.ask("XRANGE", STREAM, entries[0].id, entries[-1].id, "COUNT", len(entries))
        still = {entry_id for entry_id, _ in found}
        return [each for each in entries if each.id in still]

    async def forget(self, tenant: str, member_id: str | None) -> int:
        """Let go of every login of a member, or (None) of a whole tenant, dead ones too; how many.

        To be called while nobody drains.
        """
        gone, after = 0, b"-"
        while entries := await self._page(after):
            after = b"(" + entries[-1].id
            for each in entries:
                if _is_of(each, tenant, member_id):
                    await self.let_go(each)
                    gone += 1
        if member_id is not None:
            for name in (MEMBERS, VERSIONS, PENDING):
                await self._live.ask("HDEL", name, place(tenant, member_id))
        return gone + await self._forget_dead(tenant, member_id)

    async def _page(self, after: bytes) -> Sequence[Entry]:
        found = await self._live.ask("XRANGE", STREAM, after, "+", "COUNT", PAGE)
        return [Entry(id=entry_id, raw=fields[1], login=_read(fields[1])) for entry_id, fields in found]

    async def _forget_dead(self, tenant: str, member_id: str | None) -> int:
        """From the end, so that what is taken away moves nothing that has not been seen."""
        gone, end = 0, await self.dead()
        while end > 0:
            begin = max(0, end - PAGE)
            for raw in await self._live.ask("LRANGE", DEAD, begin, end - 1):
                if _is_of(Entry(id=b"", raw=raw, login=_read(raw)), tenant, member_id):
                    gone += int(await self._live.ask("LREM", DEAD, 0, raw))
            end = begin
        return gone

    async def let_go(self, entry: Entry, *, dead: bool = False) -> None:
        """Forget an entry that PostgreSQL has; `dead`: set it aside, because it will never have it."""
        rows = entry.login.rows if entry.login else None
        member_id = rows.member_id if rows else None
        sessions: tuple[str, ...] = ()
        if rows is not None and member_id is not None:
            _, known = await self.member(rows.tenant, member_id)
            sessions = () if known is None else tuple(place(rows.tenant, each.id) for each in known.sessions)
        await self._live.run(
            DRAINED,
            (*KEYS, DEAD),
            (
                entry.id,
                place(rows.tenant, str(rows.attempt.id)) if rows else "",
                place(rows.tenant, member_id) if rows and member_id is not None and rows.generation is not None else "",
                MOST_DEAD,
                entry.raw if dead else b"",
                *sessions,
            ),
        )


def began_ms(entry: Entry) -> int:
    """When an entry was kept, in ms since the epoch, by Valkey's clock: a stream's ids begin with it."""
    return int(entry.id.partition(b"-")[0])


def place(tenant: str, name: str) -> str:
    """A member, session or attempt of a tenant; the length in front keeps ("a:b", "c") and ("a", "b:c") apart."""
    return f"{len(tenant)}:{tenant}:{name}"


def full() -> GuardError:
    """Too many logins wait."""
    return GuardError(
        ErrorCode.UNAVAILABLE, "The database is out of reach, and no more logins can wait; try again shortly."
    )


def _is_of(entry: Entry, tenant: str, member_id: str | None) -> bool:
    """Whether a login is this member's; one that cannot be read is, when it says both names."""
    if entry.login is not None:
        return entry.login.rows.tenant == tenant and member_id in (None, entry.login.rows.member_id)
    return all(msgspec.json.encode(name) in entry.raw for name in (tenant, member_id) if name is not None)


def _read(raw: Any) -> Spooled | None:
    try:
        return msgspec.json.decode(raw, type=Spooled)
    except msgspec.MsgspecError:
        return None
