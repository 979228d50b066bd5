"""Whether the audit log is as it was written: each tenant's chain from its first record to its last, then each of its entries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from accessguard.events.chain import BEFORE_ALL, FIRST_ID, ChainStore, Seen, Written
from accessguard.events.links import FORM, Head, Kind, Link, digest_of, hash_of
from accessguard.guard.tenants import EVERYWHERE

PAGE: Final = 200
"""Records that are held at once, with their entries, of which some hold a whole set of rules."""
LOOKED_AT: Final = 5_000
"""Entries of which only their ids are read."""
KINDS: Final = frozenset[str](Kind)
RECEIPTS: Final = frozenset({"member.erase", "member.anonymise"})
"""Acts after which it is on record why words were taken out before."""

FAR: Final = timedelta(days=1)
"""Jobs write what somebody asked for hours before, and clocks differ; more than that is another time."""


class Wrong(StrEnum):
    """What was found."""

    CHANGED = "the entry is not what was written"
    REWRITTEN = "the entry was reworded as no erasure and no merge of members does"
    REMOVED = "the entry was removed"
    WRITTEN_AGAIN = "the entry was removed and written again"
    INSERTED = "the entry was inserted past the trigger, or its record was removed"
    EARLIER = "entries from before the chain were removed"
    BROKEN = "the record does not follow from the one before: one of the two was changed, or their order"
    MISSING = "records before this one were removed"
    CUT = "the end of the chain was cut off: it was longer when this head was noted"
    OTHER = "the chain was written anew: the noted head is another one"
    NEVER = "there is no chain: it was removed, or `accessguard migrate` has not been run"
    LATER = "the record has a form that this release does not know"


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """The first thing that is wrong: the number of a record, the entry it is about and that one's time, as far as there are any."""

    wrong: Wrong
    seq: int | None = None
    entry_id: str | None = None
    at: datetime | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one tenant: `fault` is None when its log is whole.

    `entries` are those that the chain saw being written, `earlier` those from
    before it. `redacted` and `moved` count rewordings; `unexplained` are the redactions after the last receipt of an erasure.
    `strayed` are entries whose own time is more than a day from when they were written.
    """

    tenant: str
    entries: int
    earlier: int
    redacted: int
    moved: int
    unexplained: int
    strayed: int
    head: Head | None
    fault: Fault | None


Step = Callable[[int], None]


class Auditing:
    """Only reads, a page at a time; every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, store: ChainStore) -> None:
        self._store = store

    async def tenants(self) -> AsyncIterator[str]:
        """Those that have entries or a chain, but for those that were deleted; always that of the installation."""
        yield EVERYWHERE
        tenant = await self._store.next_tenant("")
        while tenant is not None:
            if tenant != EVERYWHERE and not await self.gone(tenant):
                yield tenant
            tenant = await self._store.next_tenant(tenant)

    async def heads(self) -> AsyncIterator[Head]:
        """How far each chain goes."""
        async for tenant in self.tenants():
            if (head := await self._store.head(tenant)) is not None:
                yield head

    async def verify(self, tenant: str, noted: Sequence[Head] = (), *, step: Step) -> Verdict:
        """Go through one tenant's log; `noted` are heads that were kept elsewhere, `step` hears how many records were read.

        What is written meanwhile is left for the next time.
        """
        told = await self._store.told(tenant)
        walk = Walk(tenant, [*noted, *([told] if told else [])])
        fault = await self._walked(walk, step) or walk.end()
        if fault is None:
            fault = await self._compared(walk, step)
        if fault is not None and await self.gone(tenant):
            fault = None
        return walk.verdict(fault)

    async def gone(self, tenant: str) -> bool:
        """Whether a tenant was deleted, and its log goes with it; that of the installation stays."""
        return tenant != EVERYWHERE and await self._store.deleted(tenant)

    async def _walked(self, walk: Walk, step: Step) -> Fault | None:
        after, full = BEFORE_ALL, True
        while full:
            page = await self._store.links(walk.tenant, after=after, limit=PAGE)
            for seen in page:
                fault = walk.fault(seen)
                if fault is not None:
                    return fault
            step(len(page))
            full = len(page) == PAGE
            after = page[-1].link.seq if page else after
        return None

    async def _compared(self, walk: Walk, step: Step) -> Fault | None:
        """Whether the chain knows every entry, but for as many as there were before it."""
        unseen = 0
        newest: Written | None = None
        since: UUID | None = FIRST_ID
        while since is not None:
            page = await self._store.entries(walk.tenant, since=since, limit=LOOKED_AT)
            strangers = [each for each in page if not each.seen]
            unseen += len(strangers)
            newest = max(filter(None, (newest, *strangers)), key=lambda each: each.at, default=None)
            step(len(page))
            since = _after(page)
        if unseen > walk.earlier and newest is not None:
            return Fault(wrong=Wrong.INSERTED, entry_id=str(newest.id), at=newest.at)
        return Fault(wrong=Wrong.EARLIER) if unseen < walk.earlier else None


class Walk:
    """One way along a chain."""

    def __init__(self, tenant: str, noted: Sequence[Head]) -> None:
        self.tenant = tenant
        self.earlier = 0
        self._counts = dict.fromkeys(Kind, 0)
        self._unexplained = 0
        self._strayed = 0
        self._began = False
        self._before: Link | None = None
        self._noted = _by_number(noted)

    def fault(self, seen: Seen) -> Fault | None:
        """What is wrong with the next record; None when it may stand."""
        link = seen.link
        wrong = self._of_link(link) or self._of_entry(seen)
        if wrong is not None:
            at = link.at if seen.words is None else seen.words.at
            return Fault(wrong=wrong, seq=link.seq, entry_id=link.entry_id, at=at)
        self._before = link
        self._count(seen)
        return None

    def end(self) -> Fault | None:
        """What is wrong with where it ends."""
        last = self._before.seq if self._before else 0
        if not self._began and self.tenant == EVERYWHERE:
            return Fault(wrong=Wrong.NEVER)
        beyond = [number for number in self._noted if number > last]
        return Fault(wrong=Wrong.CUT, seq=min(beyond)) if beyond else None

    def verdict(self, fault: Fault | None) -> Verdict:
        """What came of it."""
        last = self._before
        return Verdict(
            tenant=self.tenant,
            entries=self._counts[Kind.WRITTEN],
            earlier=self.earlier,
            redacted=self._counts[Kind.REDACTED],
            moved=self._counts[Kind.MOVED],
            unexplained=self._unexplained,
            strayed=self._strayed,
            head=Head(tenant=self.tenant, seq=last.seq, hash=last.hash) if last else None,
            fault=fault,
        )

    def _of_link(self, link: Link) -> Wrong | None:
        number, before = (self._before.seq, self._before.hash) if self._before else (0, None)
        if link.form != FORM:
            return Wrong.LATER
        if link.seq != number + 1:
            return Wrong.MISSING if link.seq > number else Wrong.BROKEN
        if link.hash != hash_of(link, before) or link.kind not in KINDS:
            return Wrong.BROKEN
        return Wrong.OTHER if self._noted.get(link.seq, {link.hash}) != {link.hash} else None

    def _of_entry(self, seen: Seen) -> Wrong | None:
        match seen.link.kind:
            case Kind.BEGAN:
                return Wrong.BROKEN if self._began else None
            case Kind.REWRITTEN:
                return Wrong.REWRITTEN
            case Kind.WRITTEN if not seen.first:
                return Wrong.WRITTEN_AGAIN
        if not seen.last:
            return None
        if seen.words is None:
            return Wrong.REMOVED
        return None if digest_of(seen.words) == seen.link.digest else Wrong.CHANGED

    def _count(self, seen: Seen) -> None:
        kind, words = Kind(seen.link.kind), seen.words
        self._counts[kind] += 1
        if kind is Kind.BEGAN:
            self._began, self.earlier = True, seen.link.entries or 0
        if kind is Kind.REDACTED:
            self._unexplained += 1
        if kind is Kind.WRITTEN and words is not None:
            self._strayed += abs(words.at - seen.link.at) > FAR
            self._unexplained = 0 if words.action in RECEIPTS else self._unexplained


def _by_number(heads: Sequence[Head]) -> Mapping[int, set[str]]:
    found: dict[int, set[str]] = {}
    for each in heads:
        found.setdefault(each.seq, set()).add(each.hash)
    return found


def _after(page: Sequence[Written]) -> UUID | None:
    """The id from which the next page is read; None after the last."""
    if len(page) < LOOKED_AT or page[-1].id.int == 2**128 - 1:
        return None
    return UUID(int=page[-1].id.int + 1)
