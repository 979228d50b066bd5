"""Two devices of a member that are one: an operator says so, or the student where everything agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.devices.merging import MergeStore, Stored
from accessguard.devices.model import Device
from accessguard.devices.store import DeviceStore
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.acts import Act, fields, log
from accessguard.guard.changes import Changes
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor
from accessguard.members.gathering import GatherStore
from accessguard.members.sharing import KEPT
from accessguard.members.store import MemberStore
from accessguard.policies.book import PolicyBook
from accessguard.rules.device import place_since
from accessguard.rules.model import Access, Rule
from accessguard.sessions.live import Change

MOST_MERGED: Final = 200
"""Devices that one can be made of; every snapshot of the member carries their ids."""

STRICTEST: Final = (Access.BLOCKED, Access.ALLOWED, Access.DEFAULT)
AUDITED: Final = (
    "id",
    "name",
    "label",
    "access",
    "first_seen_at",
    "last_seen_at",
    "admitted_at",
    "first_admitted_at",
    "merged_ids",
)


class Merging:
    """Raises GuardError: NOT_FOUND for what is not the member's, INVALID, CONFLICT, UNAVAILABLE."""

    def __init__(self, *, db: Database, book: PolicyBook, changes: Changes, new_id: Callable[[], UUID]) -> None:
        self._db = db
        self._book = book
        self._changes = changes
        self._new_id = new_id

    async def merge(
        self, tenant: str, actor: Actor, member_id: str, device_id: UUID, into: UUID, *, reason: str | None, now_ms: int
    ) -> Device:
        """Make one device part of another; the one they are from then on.

        Once they are one, whoever asks again is told so. CONFLICT for a device
        that is part of a third one.
        """
        now, policy = from_ms(now_ms), await self._book.policy(tenant)
        change: Change | None = None
        async with self._db.transaction() as tx:
            if not await MemberStore(tx).lock(tenant, member_id):
                raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.")
            pair = await pair_of(MergeStore(tx), tenant, member_id, device_id, into)
            if pair is not None:
                act = Act(
                    tenant=tenant,
                    actor=actor,
                    action="device.merge",
                    target=str(device_id),
                    reason=reason,
                    at=now,
                    member_id=member_id,
                )
                rules = policy.rules if policy else ()
                change = await merged(tx, act, member_id, *pair, rules=rules, entry_id=self._new_id())
            survivor = await DeviceStore(tx).one(tenant, member_id, into, now=now)
        if change is not None:
            await self._changes.announce(change)
        if survivor is None:
            raise _missing()
        return survivor


async def pair_of(
    store: MergeStore, tenant: str, member_id: str, device_id: UUID, into: UUID
) -> tuple[Stored, Stored] | None:
    """The two, as they are stored, under their member's lock; None when they are one already.

    Raises GuardError: INVALID for one and the same, NOT_FOUND for what is
    unknown, forgotten or somebody else's, CONFLICT for a part of a third one.
    """
    if device_id == into:
        problem = Problem(pointer="/into", detail="is the device itself")
        raise GuardError(ErrorCode.INVALID, "A device cannot be merged into itself.", problem)
    found = await store.find(tenant, member_id, (device_id, into))
    one, other = found.get(device_id), found.get(into)
    if one is None or other is None:
        raise _missing(*(() if one is None else (Problem(pointer="/into", detail="there is no such device"),)))
    survivor = found.get(other.merged_into or other.id)
    if survivor is None or survivor.forgotten_at is not None:
        raise _missing(Problem(pointer="/into", detail="there is no such device"))
    if survivor.id in (one.id, one.merged_into):
        return None
    if one.merged_into is not None:
        raise GuardError(ErrorCode.CONFLICT, "The device is part of another one already.")
    if one.forgotten_at is not None:
        raise _missing()
    return one, survivor


async def merged(
    tx: Database, act: Act, member_id: str, one: Stored, other: Stored, *, rules: Iterable[Rule], entry_id: UUID
) -> Change:
    """Make `one` part of `other`, with its line in the audit log; what is to be told after the commit. Raises GuardError(CONFLICT).

    What the two showed as two is looked at again. Of a device that is blocked
    every session is told of, whichever of the two it was.
    """
    after = folded(one, other, rules)
    if len(after.merged_ids) > MOST_MERGED:
        raise GuardError(ErrorCode.CONFLICT, f"A device is made of {MOST_MERGED} others at most.")
    store, tenant = MergeStore(tx), act.tenant
    sessions = await store.move(tenant, member_id, one.id, other.id)
    await store.close_cases(tenant, member_id, one.id, other.id)
    await store.move_cases(tenant, member_id, one.id, other.id)
    if one.browser_id != other.browser_id:
        await store.same_browser(tenant, one.browser_id, other.browser_id)
    generation = await store.fold(tenant, member_id, one.id, after, at=act.at)
    await GatherStore(tx).gather(tenant, (member_id,), since=act.at - KEPT, until=act.at)
    before = {"device": fields(one, AUDITED), "into": fields(other, AUDITED)}
    await log(tx, act, before, {"into": fields(after, AUDITED)}, entry_id=entry_id)
    change = Change(tenant=tenant, kind="device_changed", member_id=member_id, session_ids=sessions)
    if after.access is not Access.BLOCKED:
        return change
    named = await DeviceStore(tx).sessions(tenant, member_id, after.id)
    return msgspec.structs.replace(
        change,
        session_ids=tuple(dict.fromkeys((*sessions, *named))),
        blocked=True,
        device_id=after.id,
        merged_ids=after.merged_ids,
        generation=generation,
    )


def folded(one: Stored, other: Stored, rules: Iterable[Rule]) -> Stored:
    """What the two come to, under the id of `other`.

    As it was seen last, known since it was seen first. A block of either
    holds, so that no merge lets a blocked device in; else an operator's leave
    of either does. The earlier place is kept unless it was lost before the
    later one was taken.
    """
    latest = max((other, one), key=lambda each: each.last_seen_at)
    word = min((other, one), key=lambda each: STRICTEST.index(each.access))
    return msgspec.structs.replace(
        latest,
        id=other.id,
        browser_id=other.browser_id,
        name=other.name or one.name,
        model=latest.model or other.model or one.model,
        screen=latest.screen or other.screen or one.screen,
        last_ip=latest.last_ip or other.last_ip or one.last_ip,
        access=word.access,
        access_reason=word.access_reason,
        access_by=word.access_by,
        access_at=word.access_at,
        first_seen_at=min(one.first_seen_at, other.first_seen_at),
        admitted_at=_place(one, other, rules),
        first_admitted_at=_first(one.first_admitted_at, other.first_admitted_at),
        forgotten_at=None,
        merged_into=None,
        merged_ids=(*other.merged_ids, one.id, *one.merged_ids),
    )


def _place(one: Stored, other: Stored, rules: Iterable[Rule]) -> datetime | None:
    """Since when they have their place. One that expired before the next began is no claim."""
    if one.admitted_at is None or other.admitted_at is None:
        return one.admitted_at or other.admitted_at
    earlier, later = sorted((one, other), key=lambda each: (each.admitted_at or each.first_seen_at, each.id))
    taken = later.admitted_at or later.first_seen_at
    return place_since(earlier.admitted_at, earlier.last_seen_at, rules, taken)


def _first(*times: datetime | None) -> datetime | None:
    return min((at for at in times if at is not None), default=None)


def _missing(*problems: Problem) -> GuardError:
    return GuardError(ErrorCode.NOT_FOUND, "There is no such device.", *problems)
