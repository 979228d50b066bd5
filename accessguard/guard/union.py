"""Two members that are one student: an operator says so, and everything of the one is the other's from then on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.devices.merging import MergeStore
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.acts import Act, log
from accessguard.guard.changes import Changes
from accessguard.guard.facts import Seen, from_ms, gather, session_fact
from accessguard.guard.merging import merged, pair_of
from accessguard.guard.model import Actor
from accessguard.guard.spooling import Spooling
from accessguard.members.gathering import GatherStore
from accessguard.members.sharing import KEPT
from accessguard.members.union import LOGS, MOST, Folded, UnionStore
from accessguard.policies.book import PolicyBook
from accessguard.policies.model import Policy
from accessguard.rules.engine import not_for
from accessguard.rules.model import Mode, SessionLimit, Stage
from accessguard.rules.session import EVICTING, too_many_sessions
from accessguard.sessions.live import Change
from accessguard.sessions.model import Snapshot
from accessguard.sessions.store import SessionStore

SWEEP_S: Final = 3.0
"""After a merge, a worker that has not heard of it may still write a case or a beat under the old id for so long."""
READ_S: Final = 2.0


class UnionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came over from the one to the other, and what became of what is an operator's word on one of them.

    `read_marks` stay on the cases they were set on, for the operators who set
    them. `exemption`: `kept` (the survivor's own), `dropped` (the other's, which
    does not come over), `none`. `staff` likewise: nobody becomes staff by a merge.
    """

    member_id: str
    merged: str
    sessions: int
    ended_sessions: tuple[str, ...]
    devices: int
    same_devices: int
    logins: int
    violations: int
    enrolments: tuple[str, ...]
    passes: int
    read_marks: int
    exemption: str
    staff: str


class Union:
    """Raises GuardError: NOT_FOUND for what is not the tenant's, INVALID, CONFLICT, UNAVAILABLE."""

    def __init__(
        self,
        *,
        db: Database,
        book: PolicyBook,
        changes: Changes,
        spooling: Spooling,
        new_id: Callable[[], UUID],
    ) -> None:
        self._db = db
        self._book = book
        self._changes = changes
        self._spooling = spooling
        self._new_id = new_id
        self._sweeping: set[asyncio.Task[None]] = set()

    async def merge(
        self, tenant: str, actor: Actor, old: str, new: str, *, reason: str | None, now_ms: int
    ) -> UnionReport:
        """Make one member part of another; once they are one, whoever asks again is told the same.

        The old id is unknown from then on: a login under it makes a new member.
        CONFLICT while logins of the tenant wait in Valkey for PostgreSQL.
        """
        if old == new:
            raise GuardError(
                ErrorCode.INVALID,
                "A member cannot be merged into itself.",
                Problem(pointer="/into", detail="is the member itself"),
            )
        if self._spooling.pending:
            raise GuardError(ErrorCode.CONFLICT, "Logins wait to be written; try again when they are.")
        policy, now = await self._book.policy(tenant), from_ms(now_ms)
        counts = await self._logs(tenant, old, new)
        async with self._db.transaction() as tx:
            there = await UnionStore(tx).hold(tenant, old, new)
            if new not in there or old not in there:
                return await self._earlier(tx, tenant, old, new, there)
            act = Act(tenant=tenant, actor=actor, action="member.merge", target=old, reason=reason, at=now)
            report, touched, same = await self._merged(tx, act, new, policy, counts)
        for member_id in (old, new):
            change = Change(tenant=tenant, kind="member_changed", member_id=member_id, session_ids=touched)
            await self._changes.announce(change)
        for change in same:
            await self._changes.announce(change)
        if report.ended_sessions:
            ids = report.ended_sessions
            ended = Change(tenant=tenant, kind="session_ended", member_id=new, session_ids=ids, ended=True)
            await self._changes.announce(ended)
        self._sweep(tenant, old, new)
        return report

    async def stop(self) -> None:
        """Sweep no more."""
        for task in self._sweeping:
            task.cancel()
        await asyncio.gather(*self._sweeping, return_exceptions=True)

    async def _logs(self, tenant: str, old: str, new: str) -> dict[str, int]:
        """Move the long log ahead of the rest, in portions of its own: nothing depends on whose it is meanwhile."""
        counts = dict.fromkeys(LOGS, 0)
        for what in LOGS:
            moved = MOST
            while moved >= MOST:
                async with self._db.transaction() as tx:
                    store = UnionStore(tx)
                    if len(await store.hold(tenant, old, new)) < 2:
                        return counts
                    if what == "violations" and not counts[what]:
                        counts["read_marks"] = await store.marks(tenant, old)
                    moved = await store.move_log(tenant, old, new, what)
                counts[what] += moved
        return counts

    async def _merged(
        self, tx: Database, act: Act, new: str, policy: Policy | None, counts: dict[str, int]
    ) -> tuple[UnionReport, tuple[str, ...], tuple[Change, ...]]:
        store, tenant, old = UnionStore(tx), act.tenant, act.target
        for what in LOGS:
            counts[what] += await store.move_log(tenant, old, new, what)
        devices, sessions = await store.devices(tenant, old), await store.open_sessions(tenant, old)
        enrolments = await store.enrolments(
            tenant, old, new, at=act.at, actor=act.actor.subject, reason=act.reason or "merge"
        )
        moved = await store.move(tenant, old, new)
        folded = await store.fold(tenant, old, new, at=act.at)
        same = await self._same_devices(tx, act, new, devices, policy)
        ended = await self._exceeding(tx, act, new, sessions, policy)
        await GatherStore(tx).gather(tenant, (new,), since=act.at - KEPT, until=act.at)
        report = UnionReport(
            member_id=new,
            merged=old,
            sessions=moved["session"],
            ended_sessions=ended,
            devices=moved["device"],
            same_devices=len(same),
            logins=counts["attempts"],
            violations=counts["violations"],
            enrolments=enrolments,
            passes=moved["pass"],
            read_marks=counts.get("read_marks", 0),
            exemption=_kept(mine=folded.exempt, other=folded.other_exempt),
            staff=_kept(mine=folded.staff, other=folded.other_staff),
        )
        await store.note(tenant, old, new, report, at=act.at)
        of_both = msgspec.structs.replace(act, member_id=new)
        await log(tx, of_both, {"member_id": old}, report, entry_id=self._new_id())
        into = msgspec.structs.replace(act, target=new)
        await log(tx, into, {"member_id": new}, _without_ids(report, folded), entry_id=self._new_id())
        return report, sessions, same

    async def _same_devices(
        self, tx: Database, act: Act, new: str, moved: tuple[UUID, ...], policy: Policy | None
    ) -> tuple[Change, ...]:
        """Make one device of two that are the same browser, as it was used by both; what is to be told of each."""
        same = list[Change]()
        for one, other in await UnionStore(tx).twins(act.tenant, new, moved):
            pair = await pair_of(MergeStore(tx), act.tenant, new, one, other)
            if pair is not None:
                each = msgspec.structs.replace(act, action="device.merge", target=str(one))
                rules = policy.rules if policy else ()
                same.append(await merged(tx, each, new, *pair, rules=rules, entry_id=self._new_id()))
        return tuple(same)

    async def _exceeding(
        self, tx: Database, act: Act, new: str, moved: tuple[str, ...], policy: Policy | None
    ) -> tuple[str, ...]:
        """End what limits that end sessions do not leave room for; what others refuse, they refuse at the next check."""
        store = SessionStore(tx)
        one = next(iter(await UnionStore(tx).open_sessions(act.tenant, new)), None)
        snapshot = await store.snapshot(act.tenant, one, timeout_s=READ_S) if one and moved else None
        if snapshot is None or policy is None:
            return ()
        ended = exceeding(snapshot, policy, act.at)
        for session_id in ended:
            await store.end(act.tenant, session_id, at=act.at, reason="session_limit", by=act.actor.subject)
        return ended

    async def _earlier(self, tx: Database, tenant: str, old: str, new: str, there: frozenset[str]) -> UnionReport:
        found = await UnionStore(tx).earlier(tenant, old, new) if new in there else None
        if found is None:
            problems = () if new in there else (Problem(pointer="/into", detail="there is no such member"),)
            raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.", *problems)
        return msgspec.json.decode(found, type=UnionReport)

    def _sweep(self, tenant: str, old: str, new: str) -> None:
        task = asyncio.create_task(self._swept(tenant, old, new))
        self._sweeping.add(task)
        task.add_done_callback(self._sweeping.discard)

    async def _swept(self, tenant: str, old: str, new: str) -> None:
        """Move what was written under the old id by those who had not heard, unless it is somebody's again."""
        await asyncio.sleep(SWEEP_S)
        with contextlib.suppress(GuardError):
            async with self._db.transaction() as tx:
                store = UnionStore(tx)
                if await store.hold(tenant, old, new) == {new}:
                    for what in LOGS:
                        await store.move_log(tenant, old, new, what)


def exceeding(snapshot: Snapshot, policy: Policy, now: datetime) -> tuple[str, ...]:
    """Open sessions that a limit which ends sessions leaves no room for, as at a check of each."""
    limits = [
        (rule, rule.params)
        for rule in policy.rules
        if isinstance(rule.params, SessionLimit) and rule.mode is Mode.ENFORCE and rule.action in EVICTING
    ]
    ended = []
    for session in snapshot.sessions:
        facts = gather(
            snapshot,
            policy,
            now=now,
            stage=Stage.CHECK,
            session=session_fact(session),
            device=None,
            seen=Seen(address=None, place=None),
        )
        if facts.staff or facts.exempt:
            return ()
        if any(not_for(rule, facts) is None and too_many_sessions(facts, limit, rule.action) for rule, limit in limits):
            ended.append(session.id)
    return tuple(ended)


def _kept(*, mine: bool, other: bool) -> str:
    return "kept" if mine else "dropped" if other else "none"


def _without_ids(report: UnionReport, folded: Folded) -> dict[str, object]:
    """What the survivor's own history says of it."""
    return {
        "merged": report.merged,
        "exemption": report.exemption,
        "staff": folded.staff,
        "read_marks": report.read_marks,
    }
