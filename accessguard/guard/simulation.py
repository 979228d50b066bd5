"""A rule tried on history: who would have been stopped, how often, and on which day, had it been in force."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from accessguard.database import Database
from accessguard.devices.browser import kin
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.facts import details, from_ms, time_text
from accessguard.jobs.model import Job, JobKind
from accessguard.jobs.store import JobStore
from accessguard.policies.model import RuleBody, Settings, parse
from accessguard.policies.store import PolicyStore
from accessguard.policies.windows import longest_window
from accessguard.rules.engine import in_order
from accessguard.rules.login import reach
from accessguard.rules.model import Code, Decision, Effect, FailurePer, LoginFailures, Mode, Outcome, Rule
from accessguard.rules.needs import reach_of
from accessguard.rules.replay import Event, Replay, Terms
from accessguard.sessions.replay import Lookup, Period, Person, ReplayStore
from accessguard.violations.model import QUIET
from accessguard.words.operator import case_text

AT_ONCE_S: Final = 2.0
"""What takes longer becomes a job."""
MOST_RUNNING: Final = 2
MOST_EXAMPLES: Final = 20
LONGEST: Final = timedelta(days=1096)
SLICE_S: Final = 0.002
"""The time between two pauses, in which a worker answers nobody else."""
TELL_S: Final = 2.0
SHOWN_SESSIONS: Final = 10
EFFECTS: Final = frozenset({Effect.DENIED, Effect.CHALLENGED, Effect.ENDED})


class SimulatedDay(msgspec.Struct, frozen=True, kw_only=True):
    """One day in the tenant's time zone on which somebody would have been stopped."""

    day: date
    denials: int
    members: int


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One member's first refusal (or the first session that would have been ended for the sake of another)."""

    member_id: str
    at: datetime
    code: Code
    effect: Effect
    sessions: tuple[str, ...]
    would_end: tuple[str, ...]
    limit: int | None
    counted: int | None
    retry_at: datetime | None
    explanation: str


class Simulation(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule would have done, had it been in force in the period, and no other."""

    members_affected: int
    members_total: int
    denials: int
    ended_sessions: int
    logged: int
    events: int
    by_day: tuple[SimulatedDay, ...]
    examples: tuple[Example, ...]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be tried: a rule on a period, to be explained in a language to people who live in a time zone."""

    tenant: str
    terms: Terms
    period: Period
    zone: tzinfo
    language: str


class Findings:
    """What is found, member after member; a day and the first examples are all that is kept of anybody."""

    def __init__(self, zone: tzinfo, language: str) -> None:
        self._zone = zone
        self._language = language
        self._examples: list[Example] = []
        self._days: dict[date, list[int]] = {}
        self._affected = self._denials = self._ended = self._logged = 0
        self.members = self.events = 0

    def member(self, person: Person) -> OfMember:
        """Begin with another member; staff is never looked at and not one of those counted."""
        self.members += not person.past.staff
        return OfMember(self, person.id)

    def report(self) -> Simulation:
        """What was found so far."""
        days = (SimulatedDay(day=day, denials=each[0], members=each[1]) for day, each in sorted(self._days.items()))
        return Simulation(
            members_affected=self._affected,
            members_total=self.members,
            denials=self._denials,
            ended_sessions=self._ended,
            logged=self._logged,
            events=self.events,
            by_day=tuple(days),
            examples=tuple(self._examples),
        )

    def denied(self, day: date, *, first: bool) -> None:
        """One more denial on a day; `first` is whether it is its member's first."""
        self._denials += 1
        counted = self._days.setdefault(day, [0, 0])
        counted[0] += 1
        counted[1] += first

    def affected(self, example: Example | None) -> None:
        """One more member was stopped; here is how it began."""
        self._affected += 1
        if example is not None and len(self._examples) < MOST_EXAMPLES:
            self._examples.append(example)

    def noted(self, decision: Decision, ended: int) -> None:
        """Count what happens to others than who asks."""
        self._ended += ended
        self._logged += any(step.effect in {Effect.LOGGED, Effect.EXEMPT} for step in decision.fired)

    def day_of(self, at: datetime) -> date:
        """The day of a time, where the tenant is."""
        return at.astimezone(self._zone).date()

    def example(self, member_id: str, event: Event, decision: Decision) -> Example | None:
        """A decision as an operator reads it."""
        step = decision.step or next((each for each in decision.steps if each.effect is Effect.EVICTED), None)
        if step is None or step.finding is None or step.effect is None:
            return None
        finding = step.finding
        return Example(
            member_id=member_id,
            at=event.at,
            code=finding.code,
            effect=step.effect,
            sessions=finding.sessions[:SHOWN_SESSIONS],
            would_end=finding.evict[:SHOWN_SESSIONS],
            limit=finding.limit,
            counted=finding.counted,
            retry_at=finding.retry_at,
            explanation=case_text(self._language, finding.code, details(finding, step.effect)),
        )


class OfMember:
    """What is found of one member."""

    def __init__(self, findings: Findings, member_id: str) -> None:
        self._findings = findings
        self._member_id = member_id
        self._last_day: date | None = None
        self._met = False

    def tell(self, event: Event, decision: Decision) -> None:
        """Hear a decision that found something."""
        denied = decision.outcome is not Outcome.ALLOW
        ended = len(decision.evict) + decision.ends if decision.outcome is Outcome.ALLOW or decision.ends else 0
        self._findings.noted(decision, ended)
        if not denied and not ended:
            return
        if not self._met:
            self._met = True
            self._findings.affected(self._findings.example(self._member_id, event, decision))
        if denied:
            day = self._findings.day_of(event.at)
            self._findings.denied(day, first=day != self._last_day)
            self._last_day = day


class Simulator:
    """Plays the history of a tenant; reads it in pages and keeps one member at a time.

    `pause_s` is how long others have the loop after each slice of events.
    """

    def __init__(self, store: ReplayStore, *, pause_s: float | None) -> None:
        self._store = store
        self._pause_s = pause_s

    async def run(self, asked: Asked, progress: Callable[[int], None]) -> Simulation:
        """Play it to the end; `progress` hears how many members are done. Raises GuardError(UNAVAILABLE)."""
        findings = Findings(asked.zone, asked.language)
        done = 0
        async for person, events in self._store.people(asked.tenant, asked.period):
            await self._member(person, events, asked, findings)
            done += 1
            progress(done)
        return findings.report()

    async def _member(self, person: Person, events: AsyncIterator[Event], asked: Asked, findings: Findings) -> None:
        replay, of_member = Replay(person.past, asked.terms), findings.member(person)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async for event in events:
            decision = replay.feed(event)
            if decision is not None and decision.fired:
                of_member.tell(event, decision)
            findings.events += 1
            if self._pause_s is not None and loop.time() - began > SLICE_S:
                await asyncio.sleep(self._pause_s)
                began = loop.time()


class Simulations:
    """The use case: at once when it is short, else as a job of this worker's.

    At most two go on at a time in a worker; a third is refused with CONFLICT.
    """

    def __init__(
        self,
        *,
        db: Database,
        lookup: Lookup,
        new_id: Callable[[], UUID],
        now_ms: Callable[[], int],
        at_once_s: float = AT_ONCE_S,
    ) -> None:
        self._policies = PolicyStore(db)
        self._jobs = JobStore(db)
        self._store = ReplayStore(db, lookup, kin)
        self._simulator = Simulator(self._store, pause_s=0.001)
        self._new_id = new_id
        self._now_ms = now_ms
        self._at_once_s = at_once_s
        self._running: set[asyncio.Task[None]] = set()

    async def simulate(
        self, tenant: str, body: RuleBody, *, since: datetime, until: datetime, language: str
    ) -> Simulation | Job:
        """Try a rule on a period.

        Raises GuardError: INVALID for a rule or a period that is none, NOT_FOUND
        for an unknown tenant, CONFLICT when as many are going on as may.
        """
        asked = await ask(self._policies, tenant, body, since=since, until=until, language=language)
        if len(self._running) >= MOST_RUNNING:
            raise GuardError(ErrorCode.CONFLICT, "Two simulations are going on already; try again when one is done.")
        run = _Run(asked, self._simulator, self._jobs, self._now_ms)
        task = asyncio.create_task(run.go())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.wait({task}, timeout=self._at_once_s)
        if task.done():
            await task
            if run.found is None:
                raise GuardError(ErrorCode.UNAVAILABLE, "The history could not be read; try again shortly.")
            return run.found
        return await self._handed_over(asked, run)

    async def stop(self) -> None:
        """End what is going on; its jobs say that they were interrupted."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _handed_over(self, asked: Asked, run: _Run) -> Job:
        job_id, now = self._new_id(), from_ms(self._now_ms())
        total = await self._store.count(asked.tenant, asked.period)  # before it may end
        await self._jobs.make(asked.tenant, job_id, JobKind.SIMULATE, total=total, at=now)
        run.job_id = job_id
        await run.tell()
        if run.over:
            await run.finish()
        job = await self._jobs.one(asked.tenant, job_id, now=now)
        if job is None:
            raise GuardError(ErrorCode.UNAVAILABLE, "The job could not be kept; try again shortly.")
        return job


async def simulate_alone(
    db: Database, lookup: Lookup, asked: Asked, progress: Callable[[int, int], None]
) -> Simulation:
    """Play it in a process of its own, without a pause; `progress` hears how many members of how many are done."""
    store = ReplayStore(db, lookup, kin)
    total = await store.count(asked.tenant, asked.period)
    progress(0, total)
    return await Simulator(store, pause_s=None).run(asked, lambda done: progress(done, total))


class _Run:
    """One simulation on its way; from the moment it has a `job_id`, the job is told of it."""

    def __init__(self, asked: Asked, simulator: Simulator, jobs: JobStore, now_ms: Callable[[], int]) -> None:
        self._asked = asked
        self._simulator = simulator
        self._jobs = jobs
        self._now_ms = now_ms
        self._done = 0
        self.job_id: UUID | None = None
        self.found: Simulation | None = None
        self.error: str | None = None

    @property
    def over(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self.found is not None or self.error is not None

    async def go(self) -> None:
        """Play, and say how far it is, until the end."""
        telling = asyncio.create_task(self._tell_now_and_then())
        try:
            self.found = await self._simulator.run(self._asked, self._progress)
        except GuardError:
            self.error = "the history could not be read"
        except asyncio.CancelledError:
            self.error = "interrupted"
        finally:
            telling.cancel()
        await self.finish()

    async def tell(self) -> None:
        """Tell the job how far it is."""
        if self.job_id is not None:
            await self._jobs.advance(self._asked.tenant, self.job_id, self._done, at=from_ms(self._now_ms()))

    async def finish(self) -> None:
        """Tell the job what came of it, if it is one."""
        tenant, job_id, now = self._asked.tenant, self.job_id, from_ms(self._now_ms())
        if job_id is None:
            return
        await self.tell()
        if self.found is not None:
            await self._jobs.finish(tenant, job_id, _written(self.found), at=now)
        else:
            await self._jobs.fail(tenant, job_id, self.error or "interrupted", at=now)

    def _progress(self, done: int) -> None:
        self._done = done

    async def _tell_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            try:
                await self.tell()
            except GuardError:
                continue  # the next time will do


async def ask(
    policies: PolicyStore, tenant: str, body: RuleBody, *, since: datetime, until: datetime, language: str
) -> Asked:
    """What is to be tried, ready to be played.

    The rule is taken for enforced, whatever its mode: it is asked what it would
    do. Raises GuardError: INVALID with a pointer, NOT_FOUND.
    """
    _check_period(since, until)
    rule = _rule(body)
    settings = await policies.settings(tenant)
    if settings is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such tenant.")
    terms = Terms(
        rules=in_order([rule]),
        since=since,
        idle=timedelta(seconds=settings.session.idle_ttl_s),
        lifetime=timedelta(seconds=settings.session.absolute_ttl_s),
        quiet=QUIET,
    )
    period = Period(begin=_begin(since, rule), since=since, until=until, strangers=_strangers(rule))
    return Asked(tenant=tenant, terms=terms, period=period, zone=_zone(settings), language=language)


def _written(found: Simulation) -> Any:
    """The report as it is kept, its times with milliseconds, as every answer writes them."""
    plain = msgspec.to_builtins(found, builtin_types=(datetime,))
    for example in plain["examples"]:
        for name in ("at", "retry_at"):
            at = example[name]
            example[name] = at and time_text(at)
    return plain


def _calendar(at: datetime) -> bool:
    """Whether a time is one in UTC, too."""
    try:
        at.astimezone(UTC)
    except OverflowError:
        return False
    return True


def _check_period(since: datetime, until: datetime) -> None:
    problem = None
    if not (_calendar(since) and _calendar(until)):
        problem = Problem(pointer="/to" if _calendar(since) else "/from", detail="is not in the calendar")
    elif until <= since:
        problem = Problem(pointer="/to", detail="must be after `from`")
    elif until - since > LONGEST:
        problem = Problem(pointer="/to", detail=f"at most {LONGEST.days} days after `from`")
    if problem is not None:
        raise GuardError(ErrorCode.INVALID, "The period was refused.", problem)


def _rule(body: RuleBody) -> Rule:
    enforced = msgspec.structs.replace(body, mode=Mode.ENFORCE)
    try:
        return parse(enforced, id=UUID(int=0), version=1)
    except GuardError as error:
        problems = (msgspec.structs.replace(each, pointer=f"/rule{each.pointer}") for each in error.problems)
        raise GuardError(error.code, error.message, *problems) from None


def _begin(since: datetime, rule: Rule) -> datetime:
    """Where the run-up begins: as far back as the rule looks, and not before the calendar."""
    window = max(longest_window(rule), reach_of([rule]))
    earliest = datetime.min.replace(tzinfo=since.tzinfo) + timedelta(days=1)
    return since - min(window, since - earliest)


def _strangers(rule: Rule) -> timedelta | None:
    params = rule.params
    return reach(params) if isinstance(params, LoginFailures) and params.per is not FailurePer.MEMBER else None


def _zone(settings: Settings) -> tzinfo:
    """The tenant's time zone, UTC when it names none that is known."""
    try:
        return ZoneInfo(settings.time_zone)
    except (KeyError, ValueError, OSError):  # unknown, no name at all, a folder of zones
        return ZoneInfo("UTC")
