"""Logins while PostgreSQL is out: decided on what is known, kept in Valkey, written once it is back.

What was answered is what will be written: the rows are made when the login is
answered, and only what could not be known then is put right at the end.
See docs/decisions/0006-spool.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID, uuid5

import msgspec
import structlog

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.changes import Changes
from accessguard.guard.model import LoginVerdict
from accessguard.guard.pending import challenge_of
from accessguard.guard.plan import Plan
from accessguard.guard.provisional import after, asked_by, belief, merged, provisional, settled
from accessguard.guard.seal import fingerprint, key_row, unsealed
from accessguard.guard.visit import Visit
from accessguard.members.store import MemberStore
from accessguard.metrics import SPOOL_AGE, SPOOL_LENGTH, SPOOLED
from accessguard.policies.model import Policy
from accessguard.sessions.live import Change, Live
from accessguard.sessions.logins import LoginStore
from accessguard.sessions.model import Knock, LoginRows, Replay, SessionRow, Snapshot
from accessguard.sessions.spool import Entry, Kept, Place, Spool, Spooled, began_ms, full
from accessguard.violations.model import QUIET

LOOK_S: Final = 1.0
PATIENCE_S: Final = 1.0
"""So long a login waits for the drain of those before it, once PostgreSQL answers: kept as well, it would only put off
the end, and who logs in again and again would never be out of the spool."""
AGAIN_S: Final = 0.05
TRIES: Final = 20
"""How often a login is decided again because another one of its member was kept meanwhile: of so many at once each gets through, as each time one does."""
AT_ONCE: Final = 50
"""Logins of one transaction: some 50 ms, in which nobody else can drain. Half as many after one that came to nothing,
because PostgreSQL may be too slow for so many in the 5 s of a transaction."""
FAILURES: Final = 10
"""How often a login is tried that fails for a reason nobody thought of, while no other one gets through either."""
DOUBT_S: Final = 60.0
"""So long after the last sign of trouble a login looks whether one like it still waits."""
HOLD_BACK_S: Final = 60.0
"""So long beats wait for the sessions that wait: should Valkey be gone by then, so are they."""
LOCK: Final = 0x4147_0003
MINE: Final = "SELECT pg_try_advisory_xact_lock($1)"
WRITTEN: Final = "SELECT session_id FROM login_attempt WHERE tenant = $1 AND id = $2 LIMIT 1"
LOG: Final = structlog.get_logger("accessguard.spool")


class Spooling:
    """One for each worker; an advisory lock lets one of them drain at a time."""

    def __init__(self, *, db: Database, live: Live, changes: Changes, now_ms: Callable[[], int]) -> None:
        self._db = db
        self._spool = Spool(live)
        self._changes = changes
        self._now_ms = now_ms
        self._breaker = db.breaker
        self.pending = 0
        self._hurry = asyncio.Event()
        self._at_once = AT_ONCE
        self._failures = 0
        self._held = set[Place]()
        self._trouble = 0.0
        self._back = time.monotonic()

    @property
    def doubtful(self) -> bool:
        """Whether logins may be waiting that concern this worker, as far as it has seen."""
        since = max(self._trouble, self._changes.spooled_at)
        return self.pending > 0 or self._breaker.open or (since > 0 and time.monotonic() - since < DOUBT_S)

    @property
    def holds_back(self) -> bool:
        """Whether beats are to wait until the logins have become sessions."""
        return self.pending > 0 and time.monotonic() - self._back < HOLD_BACK_S

    async def waits(self, tenant: str, member_id: str | None, attempt_id: UUID) -> bool:
        """Whether this login is to be kept with others of its member, so that they stay in order."""
        if not self.doubtful:
            return False
        until = time.monotonic() + PATIENCE_S
        try:
            while await self._spool.waits(tenant, member_id, attempt_id):
                if self._breaker.open or time.monotonic() > until:
                    return True
                self._hurry.set()
                await asyncio.sleep(AGAIN_S)
        except GuardError:
            return False
        return False

    async def of_session(self, tenant: str, session_id: str, *, out: bool = False) -> Snapshot | None:
        """The member of a session that is not in PostgreSQL yet, which may be `out` just now. Raises GuardError(UNAVAILABLE)."""
        if not (out or self.doubtful):
            return None
        known = await self._spool.of_session(tenant, session_id)
        member = None if known is None else merged(self._changes.last_known(tenant, known.member_id), known)
        return None if member is None else await self._changes.bars.over(member)

    async def replay(self, tenant: str, attempt_id: UUID) -> Replay | None:
        """What was answered to an attempt that waits. Raises GuardError(UNAVAILABLE)."""
        return await self._spool.answered(tenant, attempt_id)

    async def take(
        self,
        policy: Policy,
        visit: Visit,
        salt: bytes,
        planned: Plan | None,
        known: Snapshot | None,
        *,
        met: Callable[[Visit, Snapshot], Visit] = lambda visit, _: visit,
    ) -> tuple[Plan, LoginVerdict, Visit] | Replay:
        """Decide on a login, and keep it; the answer without its secrets, or the one that was given before.

        `planned` is what was about to be written when PostgreSQL fell silent:
        whether it was or not, it is what is answered. `met` gives a first login
        the device of another one at once that waits. Raises
        GuardError(UNAVAILABLE) when Valkey does not answer, or too many wait.
        """
        self._trouble = time.monotonic()
        tenant, member_id, said = policy.tenant, visit.asked.member_id, visit
        for _ in range(TRIES):
            version, waiting = (0, None) if member_id is None else await self._spool.member(tenant, member_id)
            before = merged(known or self._changes.last_known(tenant, member_id or ""), waiting)
            before = before and await self._changes.bars.over(before)
            visit = said if before is None or planned is not None else met(said, before)
            barred = await self._changes.bars.blocked(tenant, [visit.claim.device_id] if visit.claim else [])
            plan = belief(planned) if planned is not None else provisional(policy, visit, before, barred=bool(barred))
            answer = unsealed(plan, visit)
            rows = _sealed(plan, visit, salt, answer)
            left = None if rows.generation is None else after(before, plan, policy)
            replay = Replay(
                fingerprint=fingerprint(visit.asked), salt=visit.seed, answer=msgspec.Raw(msgspec.json.encode(answer))
            )
            claimed = visit.claim.device_id if visit.claim and not _knows(before, visit.claim.device_id) else None
            login = Spooled(rows=rows, claimed=claimed, twin=visit.twin and planned is None)
            kept, earlier = await self._spool.keep(login, replay, version, left)
            if kept is Kept.MOVED:
                continue
            again = await self._kept(kept, earlier)
            return again or (plan, answer, visit)
        raise GuardError(ErrorCode.UNAVAILABLE, "Another login of this member is under way; try again.")

    async def _kept(self, kept: Kept, earlier: Replay | None) -> Replay | None:
        """Wait until it is on the disk; what was answered before, if the attempt was known. Raises GuardError(UNAVAILABLE)."""
        if kept is Kept.FULL:
            SPOOLED.labels("full").inc()
            raise full()
        self.pending = max(1, self.pending)
        durable = await self._spool.synced()
        SPOOLED.labels("kept" if earlier is None else "again").inc()
        SPOOLED.labels("unsynced").inc(0 if durable or earlier is not None else 1)
        return earlier

    async def run(self) -> None:
        """Look once a second, and when somebody waits for it, until cancelled; drain when there is something and PostgreSQL answers."""
        while True:
            with contextlib.suppress(GuardError):
                await self.look()
            await asyncio.sleep(AGAIN_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._hurry.wait()
            self._hurry.clear()

    async def look(self) -> None:
        """Count what waits, and drain it if that can be. Raises GuardError(UNAVAILABLE)."""
        if self._breaker.open:
            self._trouble = self._back = time.monotonic()
        await self._count()
        if self.pending and not self._breaker.open:
            await self.drain()

    async def _count(self) -> None:
        self.pending = await self._spool.length()
        SPOOL_LENGTH.set(self.pending)
        oldest = await self._spool.oldest(1) if self.pending else ()
        SPOOL_AGE.set(max(0.0, (self._now_ms() - began_ms(oldest[0])) / 1000) if oldest else 0.0)

    async def forget(self, tx: Database, tenant: str, member_id: str | None) -> bool:
        """Let go of what waits of a member, or (None) of a whole tenant; nobody drains until the transaction ends.

        False while another worker drains: ask again. Raises GuardError(UNAVAILABLE).
        """
        if not await tx.value(MINE, LOCK):
            return False
        await self._spool.forget(tenant, member_id)
        return True

    async def drain(self) -> int:
        """Write what waits, the oldest first, until nothing does or another worker is at it; how many were written.

        What belongs to a member whom somebody else holds just now is passed over until the next look, all of it, so
        that it stays in order and nobody else's waits for it. Raises GuardError(UNAVAILABLE) when a store goes away; what is left stays.
        """
        total, after = 0, None
        self._held.clear()
        while entries := await self._spool.oldest(self._at_once, after=after):
            try:
                mine = await self._all_written(entries)
            except GuardError:
                self._at_once = max(1, self._at_once // 2)
                raise
            if not mine:
                break
            self._at_once, self._failures = min(2 * self._at_once, AT_ONCE), 0
            total += sum(not self._is_held(each) for each in entries)
            after = entries[-1].id
        await self._count()
        return total

    async def _all_written(self, entries: Sequence[Entry]) -> bool:
        """Write some together, or one by one where that is refused; False when another worker drains."""
        try:
            return await self._written(entries) is not None
        except GuardError as error:
            if error.code is ErrorCode.UNAVAILABLE:
                raise
        except Exception as error:
            LOG.exception("spooled_login_failed", exc_info=error)
        return await self._one_by_one(entries)

    async def _one_by_one(self, entries: Sequence[Entry]) -> bool:
        """Each in a transaction of its own, because one of them is refused; that one is set aside.

        So is one that fails for a reason nobody thought of, once another one
        has got through: then it is no fault of PostgreSQL's. Where none does,
        the oldest is set aside after `FAILURES` looks.
        """
        failed, written = list[Entry](), 0
        for entry in entries:
            try:
                many = await self._written((entry,))
                if many is None:
                    return False
                written += many
            except GuardError as error:
                if error.code is ErrorCode.UNAVAILABLE:
                    raise
                await self._dead(entry, error.code)
            except Exception as error:
                LOG.exception("spooled_login_failed", exc_info=error)
                failed.append(entry)
        await self._give_up(failed if written else failed[:1], at_once=written > 0)
        return True

    async def _give_up(self, failed: Sequence[Entry], *, at_once: bool) -> None:
        """Set aside what will never be written. Raises GuardError(UNAVAILABLE) as long as that is not certain."""
        if not failed:
            return
        self._failures += 1
        if not at_once and self._failures < FAILURES:
            raise GuardError(ErrorCode.UNAVAILABLE, "No login that waits can be written; they are tried again.")
        for entry in failed:
            await self._dead(entry, "unexpected")

    async def _dead(self, entry: Entry, reason: str) -> None:
        SPOOLED.labels("dead").inc()
        LOG.error("spooled_login_refused", reason=reason)
        await self._spool.let_go(entry, dead=True)

    async def _written(self, entries: Sequence[Entry]) -> int | None:
        """Write some in one transaction, then let go of them; how many were not written before, None when another worker drains."""
        async with self._db.transaction() as tx:
            if not await tx.value(MINE, LOCK):
                return None
            entries = await self._spool.waiting(entries)  # but for those of members that were erased meanwhile
            free = [each.login for each in entries if each.login is not None and not self._is_held(each)]
            many, held = await _write_all(tx, free)
        self._held |= held
        await self._let_go([each for each in entries if each.login is not None and not self._is_held(each)])
        for entry in entries:
            if entry.login is None:
                await self._dead(entry, "unreadable")
        return many

    async def _let_go(self, entries: Sequence[Entry]) -> None:
        """Forget those that are written, all at once: one after the other they would take longer than the writing.

        Raises GuardError(UNAVAILABLE) when one could not be forgotten; it is passed over when it is seen again.
        """
        left = await asyncio.gather(*map(self._spool.let_go, entries), return_exceptions=True)
        gone = [each.login.rows for each, error in zip(entries, left, strict=True) if error is None and each.login]
        blocked = await self._blocked(gone)
        for rows in gone:
            SPOOLED.labels("drained").inc()
            await self._tell(rows)
            if rows.session is not None and (rows.tenant, rows.session.device_id) in blocked:
                await self._tell_blocked(rows, rows.session)
        for error in left:
            if error is not None:
                raise error

    async def _blocked(self, logins: Sequence[LoginRows]) -> frozenset[tuple[str, UUID]]:
        """The devices of some logins that were blocked while these waited, by their tenant."""
        found = set[tuple[str, UUID]]()
        for tenant in {rows.tenant for rows in logins}:
            ids = {rows.device.id for rows in logins if rows.tenant == tenant and rows.device is not None}
            found |= {(tenant, each) for each in await self._changes.bars.blocked(tenant, sorted(ids))}
        return frozenset(found)

    async def _tell_blocked(self, rows: LoginRows, session: SessionRow) -> None:
        """Tell everybody of a session that the block of its device could not name, as it was not there yet."""
        await self._changes.announce(
            Change(
                tenant=rows.tenant,
                kind="device_changed",
                member_id=rows.member_id,
                session_ids=(session.id,),
                blocked=True,
                device_id=session.device_id,
                generation=rows.generation or 0,
            )
        )

    def _is_held(self, entry: Entry) -> bool:
        """Whether it is somebody's who was found held since this drain began."""
        rows = entry.login.rows if entry.login else None
        return rows is not None and (rows.tenant, rows.member_id or "") in self._held

    async def _tell(self, rows: LoginRows) -> None:
        if rows.member_id is None:
            return
        ended = tuple(each.id for each in rows.ended)
        touched = (*ended, rows.session.id) if rows.session is not None else ended
        kind = "session_ended" if ended else "session_started"
        await self._changes.announce(
            Change(tenant=rows.tenant, kind=kind, member_id=rows.member_id, session_ids=touched)
        )


async def _write_all(tx: Database, logins: Sequence[Spooled]) -> tuple[int, frozenset[Place]]:
    """Write those within the transaction that are not written already, but for members whom somebody else holds: how many, and these.

    Members are taken first, and in the order of their keys, as everybody else
    takes them. Raises GuardError(CONFLICT) for what cannot be written.
    """
    fresh = [each for login in logins if (each := await _fresh(tx, login)) is not None]
    members = {(each.rows.tenant, each.rows.member_id or ""): each.rows.at for each in reversed(fresh)}
    members = {place: at for place, at in sorted(members.items()) if place[1]}
    for (tenant, member_id), at in members.items():
        await MemberStore(tx).ensure(tenant, member_id, at=at)
    held = frozenset(members) - await LoginStore(tx, quiet=QUIET).lock_free(tuple(members))
    free = [each for each in fresh if (each.rows.tenant, each.rows.member_id or "") not in held]
    for each in free:
        await _write(tx, each)
    return len(free), held


async def _fresh(tx: Database, login: Spooled) -> Spooled | None:
    """What is still to be written of a login: all of it, or nothing where its attempt is in the log.

    An attempt that was written by a worker whose answer got lost, and asked
    for again where PostgreSQL was out, has opened another session: both were
    answered. Its second line has an id made of the two, so that it is written once.
    """
    rows = login.rows
    written = await tx.row(WRITTEN, rows.tenant, rows.attempt.id)
    if written is None:
        return login
    if rows.session is None or rows.session.id == written[0]:
        return None
    again = uuid5(rows.attempt.id, rows.session.id)
    if await tx.row(WRITTEN, rows.tenant, again) is not None:
        return None
    attempt = msgspec.structs.replace(rows.attempt, id=again)
    return msgspec.structs.replace(login, rows=msgspec.structs.replace(rows, attempt=attempt, key=None))


async def _write(tx: Database, login: Spooled) -> None:
    rows, store = login.rows, LoginStore(tx, quiet=QUIET)
    if rows.member_id is not None and rows.generation is not None:
        session_id = rows.session.id if rows.session else None
        knock = Knock(
            tenant=rows.tenant,
            member_id=rows.member_id,
            device_id=asked_by(rows),
            session_id=session_id,
            attempt_id=None,
        )
        opening = (await store.read(knock)).opening
        if opening is None or opening.session_owner not in (None, rows.member_id):
            raise GuardError(ErrorCode.CONFLICT, "This session is another member's.")
        rows = settled(rows, opening, twin=login.twin)
    if await store.record(rows) is None:
        raise GuardError(ErrorCode.UNAVAILABLE, "The member changed under its lock.")


def _sealed(plan: Plan, visit: Visit, salt: bytes, answer: LoginVerdict) -> LoginRows:
    return msgspec.structs.replace(
        plan.rows, key=key_row(visit, visit.seed, answer), challenge=challenge_of(plan, visit, salt)
    )


def _knows(before: Snapshot | None, device_id: UUID) -> bool:
    return before is not None and before.device(device_id) is not None
