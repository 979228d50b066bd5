"""What has to be done now and then, each job by one worker at a time over all hosts.

A job is a `Chore`: one bounded step in a transaction that holds the job's
advisory lock, repeated until there is nothing left or its time is over. The
lock ends with the transaction, so a worker that dies, or loses PostgreSQL,
leaves the job to whoever asks next; and the way through a pooler is the same.
When a job was done last is a row in PostgreSQL, so restarts do not repeat it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import product
from typing import Final

import msgspec
import structlog

from accessguard.challenges.store import ChallengeStore
from accessguard.database import Database
from accessguard.errors import GuardError
from accessguard.events.chain import ChainStore
from accessguard.events.idempotency import IdempotencyStore
from accessguard.events.outbox import OutboxStore
from accessguard.events.webhooks import WebhookStore
from accessguard.guard.facts import from_ms
from accessguard.jobs.store import JobStore
from accessguard.members.erasure import ErasureStore
from accessguard.members.filing import Filing
from accessguard.members.latest import LatestStore
from accessguard.members.pages import PageStore
from accessguard.members.retention import CUTS, RetentionStore
from accessguard.members.sheets import SheetStore
from accessguard.metrics import UPKEEP_DONE, UPKEEP_ROWS, UPKEEP_RUNS, UPKEEP_SECONDS
from accessguard.policies.model import Retention
from accessguard.sessions.logins import LoginStore
from accessguard.sessions.networks import NetworkStore
from accessguard.sessions.store import MONTHS_AHEAD, PARTITIONED, UPKEEP_LOCK, SessionStore
from accessguard.tallies.past import PastStore
from accessguard.tallies.store import TallyStore

MOST: Final = 1_000
"""Rows of one step: some 20 ms, during which they are locked."""
FILED: Final = 200
"""Members taken into the directory in one step, which hold their rows for about as long."""
NOTES: Final = 2_000
"""Notes of what was counted; a step adds them up to some hundred rows in some 30 ms, for which a report may have to wait."""
PAGES: Final = 200
"""Members whose last pages are rebuilt, or whose past is counted, in one step."""
PAUSE_S: Final = 0.05
AGAIN_S: Final = 5.0
"""How soon a worker looks again when another is at it, or when a run came to nothing."""
DEFAULT: Final = Retention()
LOG: Final = structlog.get_logger("accessguard.upkeep")

LOCK: Final = "SELECT pg_try_advisory_xact_lock($1::integer, hashtext($2))"

# A time that has not come yet was written before a clock was set back, and says nothing. What is deleted by its age is
# old by both clocks, this worker's and PostgreSQL's.
DUE: Final = """
    SELECT least($3::timestamptz, now()) AS now, u.done_at,
           CASE WHEN u.done_at <= now() THEN extract(epoch FROM u.done_at + $2::interval - now())::float ELSE 0 END AS rest_s
      FROM (SELECT 1) one LEFT JOIN upkeep u ON u.job = $1
"""

DONE: Final = """
    INSERT INTO upkeep AS u (job, done_at) VALUES ($1, now())
        ON CONFLICT (job) DO UPDATE SET done_at = excluded.done_at
    RETURNING done_at
"""


class Job(StrEnum):
    """What there is to do."""

    PARTITIONS = "partitions"
    LOGIN_KEYS = "login_keys"
    IDEMPOTENCY_KEYS = "idempotency_keys"
    CHALLENGES = "challenges"
    JOBS = "jobs"
    NETWORKS = "networks"
    DIRECTORY = "directory"
    LATEST = "latest"
    TALLIES = "tallies"
    PAGES = "pages"
    PAST = "past"
    SESSIONS = "sessions"
    LOGINS = "logins"
    ACTIVITY = "activity"
    VIOLATIONS = "violations"
    ADDRESSES = "addresses"
    ERASURES = "erasures"
    SAMPLES = "samples"
    SHEETS = "sheets"
    TENANTS = "tenants"
    DEVICES = "devices"
    EVENTS = "events"
    DELIVERIES = "deliveries"
    AUDIT_HEADS = "audit_heads"
    SECRETS = "secrets"


class Chore(msgspec.Struct, frozen=True, kw_only=True):
    """A job, how long after it was done it is due again, and its step.

    `step` gets the transaction that holds the job's lock and a time by which
    what has expired can safely be told; it answers how many rows it dealt
    with. `most` or more mean that there may be more to do (0: one step is all);
    a step has the 5 s of a transaction, a run `within`. A step that works
    `beside` its transaction needs a second connection while it has one.
    """

    job: Job
    every: timedelta
    step: Callable[[Database, datetime], Awaitable[int]]
    most: int = MOST
    within: timedelta = timedelta(minutes=1)
    beside: bool = False


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one step: rows dealt with, and the seconds after which to look again (None: go on at once)."""

    rows: int = 0
    rest_s: float | None = None
    held: bool = True


class Upkeep:
    """One in each worker; advisory locks let one of them at a time do a job."""

    def __init__(self, db: Database, *, now_ms: Callable[[], int], chores: Sequence[Chore] | None = None) -> None:
        self._db = db
        self._now_ms = now_ms
        self.chores: Sequence[Chore] = self._usual() if chores is None else chores
        # One at a time: behind PgBouncer there may be three connections, and three who wait for a fourth wait for ever.
        self._beside = asyncio.Lock()

    async def run(self) -> None:
        """Do what is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for chore in self.chores:
                group.create_task(self._keep(chore))

    async def attempt(self, chore: Chore) -> float:
        """Do a job if it is due and nobody else is at it; the seconds after which to look again."""
        loop = asyncio.get_running_loop()
        began, seconds, rows = loop.time(), chore.within.total_seconds(), 0
        while True:
            turn = await self._step(chore)
            rows += turn.rows
            over = loop.time() - began >= seconds
            if turn.rest_s is not None or over:
                break
            await asyncio.sleep(PAUSE_S)
        if turn.held:
            UPKEEP_RUNS.labels(chore.job, "done" if turn.rest_s is not None else "cut").inc()
            UPKEEP_ROWS.labels(chore.job).inc(rows)
            UPKEEP_SECONDS.labels(chore.job).inc(loop.time() - began)
        return AGAIN_S if turn.rest_s is None else turn.rest_s

    async def once(self) -> None:
        """Make the partitions of this month and the next two.

        Without one, rows go to the default partition: nothing is lost, but
        they cannot be dropped by the month.
        """
        at = from_ms(self._now_ms())
        sessions = SessionStore(self._db)
        for parent, ahead in product(PARTITIONED, range(MONTHS_AHEAD + 1)):
            try:
                await sessions.ensure_partition(parent, at=at, ahead=ahead)
            except GuardError as error:
                LOG.warning("partition_not_made", table=parent, months_ahead=ahead, reason=error.code)

    async def _keep(self, chore: Chore) -> None:
        while True:
            rest_s = AGAIN_S
            try:
                rest_s = await self.attempt(chore)
            except GuardError as error:
                UPKEEP_RUNS.labels(chore.job, "failed").inc()
                LOG.warning("upkeep_failed", job=chore.job, reason=error.code)
            except Exception as error:
                UPKEEP_RUNS.labels(chore.job, "failed").inc()
                LOG.exception("job_failed", job=chore.job, exc_info=error)
            await asyncio.sleep(rest_s)

    async def _step(self, chore: Chore) -> Turn:
        """One step, in one transaction under the job's lock."""
        every_s = chore.every.total_seconds()
        async with self._beside if chore.beside else nullcontext(), self._db.transaction() as tx:
            if not await tx.value(LOCK, UPKEEP_LOCK, chore.job):
                return Turn(rest_s=min(AGAIN_S, every_s), held=False)
            due = await tx.row(DUE, chore.job, chore.every, from_ms(self._now_ms()))
            if due is None:
                raise LookupError("a row that stands for all is not there")
            if due["done_at"] is not None:
                UPKEEP_DONE.labels(chore.job).set(due["done_at"].timestamp())
            if due["rest_s"] > 0:
                return Turn(rest_s=due["rest_s"], held=False)
            rows = await chore.step(tx, due["now"])
            if chore.most and rows >= chore.most:
                return Turn(rows=rows)
            UPKEEP_DONE.labels(chore.job).set((await tx.value(DONE, chore.job)).timestamp())
        return Turn(rows=rows, rest_s=every_s)

    def _usual(self) -> tuple[Chore, ...]:
        """What every worker of the service keeps up."""
        hourly, daily = timedelta(hours=1), timedelta(days=1)
        return (
            Chore(job=Job.PARTITIONS, every=timedelta(hours=6), step=self._partitions, most=0, beside=True),
            Chore(job=Job.LOGIN_KEYS, every=hourly, step=_login_keys),
            Chore(job=Job.IDEMPOTENCY_KEYS, every=hourly, step=_idempotency_keys),
            Chore(job=Job.EVENTS, every=timedelta(minutes=10), step=_events),
            Chore(job=Job.DELIVERIES, every=hourly, step=_deliveries),
            Chore(job=Job.JOBS, every=hourly, step=_jobs),
            Chore(job=Job.CHALLENGES, every=daily, step=_challenges),
            Chore(job=Job.NETWORKS, every=daily, step=_networks),
            Chore(job=Job.DIRECTORY, every=timedelta(seconds=15), step=_directory, most=FILED),
            Chore(job=Job.LATEST, every=timedelta(minutes=1), step=_latest),
            Chore(job=Job.TALLIES, every=timedelta(minutes=1), step=_tallies, most=NOTES),
            Chore(job=Job.PAGES, every=timedelta(minutes=5), step=_pages, most=PAGES),
            Chore(job=Job.PAST, every=hourly, step=_past, most=1),
            Chore(job=Job.SESSIONS, every=daily, step=_sessions),
            Chore(job=Job.LOGINS, every=daily, step=_logins, most=1),
            Chore(job=Job.ACTIVITY, every=daily, step=_activity, most=1),
            Chore(job=Job.VIOLATIONS, every=daily, step=_violations, most=1),
            Chore(job=Job.ADDRESSES, every=daily, step=_addresses, most=1),
            Chore(job=Job.ERASURES, every=hourly, step=_erasures),
            Chore(job=Job.SAMPLES, every=hourly, step=self._samples, most=1, beside=True),
            Chore(job=Job.SHEETS, every=hourly, step=self._sheets, beside=True),
            Chore(job=Job.AUDIT_HEADS, every=daily, step=_audit_heads),
        )

    async def _partitions(self, _: Database, __: datetime) -> int:
        await self.once()
        return 0

    async def _samples(self, _: Database, __: datetime) -> int:
        """Have one table's samples drawn anew, beside the transaction: where a table is big, that has no time for it."""
        return int(await ErasureStore(self._db).sample_anew())

    async def _sheets(self, tx: Database, now: datetime) -> int:
        """Keep one up, beside the transaction: where all cases of a school are counted, that has no time for it."""
        if await SheetStore(self._db).keep_up(now, MOST):
            return MOST
        return await SheetStore(tx).expire(now, MOST)


async def _login_keys(tx: Database, now: datetime) -> int:
    return await LoginStore(tx, quiet=timedelta(0)).expire(now, MOST)


async def _idempotency_keys(tx: Database, now: datetime) -> int:
    return await IdempotencyStore(tx).expire(now, MOST)


async def _jobs(tx: Database, now: datetime) -> int:
    return await JobStore(tx).expire(now, MOST)


async def _challenges(tx: Database, now: datetime) -> int:
    return await ChallengeStore(tx).expire(now, MOST, default_days=DEFAULT.violations_days)


async def _events(tx: Database, now: datetime) -> int:
    return await OutboxStore(tx).expire(now, MOST)


async def _deliveries(tx: Database, now: datetime) -> int:
    return await WebhookStore(tx).expire(now, MOST)


async def _directory(tx: Database, now: datetime) -> int:
    return await Filing(tx).catch_up(None, now=now, most=FILED)


async def _latest(tx: Database, now: datetime) -> int:
    return await LatestStore(tx).settle(now, MOST)


async def _sessions(tx: Database, now: datetime) -> int:
    return await RetentionStore(tx).expire("session", now, MOST, default_days=DEFAULT.logins_days)


async def _logins(tx: Database, now: datetime) -> int:
    return await _by_month(tx, "login_attempt", now, DEFAULT.logins_days)


async def _activity(tx: Database, now: datetime) -> int:
    return await _by_month(tx, "activity", now, DEFAULT.activity_days)


async def _violations(tx: Database, now: datetime) -> int:
    return await _by_month(tx, "violation", now, DEFAULT.violations_days)


async def _by_month(tx: Database, table: str, now: datetime, days: int) -> int:
    """Drop a month that is too old for everybody; where there is none, delete rows that are too old for their tenant."""
    store = RetentionStore(tx)
    return await store.drop_month(table, now, default_days=days) or await store.expire(
        table, now, MOST, default_days=days
    )


async def _addresses(tx: Database, now: datetime) -> int:
    """Cut some addresses of one table; the next table when nothing is left in this one."""
    store = RetentionStore(tx)
    for table in CUTS:
        if done := await store.cut(table, now, MOST):
            return done
    return 0


async def _erasures(tx: Database, now: datetime) -> int:
    return await ErasureStore(tx).expire(now, MOST)


async def _networks(tx: Database, now: datetime) -> int:
    return await NetworkStore(tx).expire(now, MOST, default_days=DEFAULT.logins_days)


async def _tallies(tx: Database, _: datetime) -> int:
    return await TallyStore(tx).add_up(most=NOTES)


async def _audit_heads(tx: Database, now: datetime) -> int:
    """Tell how far each audit log goes, where it has moved: kept in logs, it shows what the database alone could hide."""
    heads = await ChainStore(tx).tell(now, MOST)
    for head in heads:
        LOG.info("audit_head", tenant=head.tenant, seq=head.seq, hash=head.hash)
    return len(heads)


async def _pages(tx: Database, now: datetime) -> int:
    return await PageStore(tx).rebuild(now, most=PAGES)


async def _past(tx: Database, _: datetime) -> int:
    return await PastStore(tx).count(most=PAGES)
