"""One member's history, played again under rules that were not in force; judged by the very functions that enforce.

What the history leaves behind is kept as the stores would keep it: a login
that is refused opens no session, a session that is refused does not move, and
neither takes a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

import msgspec

from accessguard.rules.device import place_since
from accessguard.rules.engine import judge, mild, of_failure
from accessguard.rules.login import reach
from accessguard.rules.model import (
    Access,
    Activity,
    CaseFact,
    CopiedSession,
    Decision,
    DeviceFact,
    Effect,
    EnrolmentFact,
    Facts,
    FailureFact,
    ImpossibleTravel,
    LoginFailures,
    NetworkFact,
    NetworkLimit,
    Outcome,
    Place,
    Rule,
    SessionFact,
    Stage,
)
from accessguard.rules.network import admitted_since
from accessguard.rules.networks import Address
from accessguard.rules.sighting import sighting

MOST_NETWORKS: Final = 500
"""As many as a snapshot of a member holds (sessions/evidence.py)."""


class Span(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A time in which something is so: from `since` on, before `until`; None is without end."""

    since: datetime | None = None
    until: datetime | None = None

    def __contains__(self, at: datetime) -> bool:
        return (self.since is None or self.since <= at) and (self.until is None or at < self.until)


class Open(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session that has not ended, and when it will at the latest."""

    fact: SessionFact
    expires_at: datetime


class KnownDevice(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A device, and what operators did with it: its access since `access_at`, forgotten at `forgotten_at`.

    `there` is whether it was known when the history begins, and does not come up in the course of it.
    """

    fact: DeviceFact
    there: bool = True
    access_at: datetime | None = None
    forgotten_at: datetime | None = None


class Standing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One enrolment as it stood from `at` on (None: always); without a `fact` there was none."""

    product_id: str
    at: datetime | None = None
    fact: EnrolmentFact | None = None


class Past(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One member as it was when the history begins.

    `exempt`, `extra_sessions` and `extra_devices` are the times of exemptions
    and passes. `enrolments` stand in order of time.
    """

    tags: frozenset[str] = frozenset()
    staff: bool = False
    exempt: tuple[Span, ...] = ()
    extra_sessions: tuple[Span, ...] = ()
    extra_devices: tuple[Span, ...] = ()
    sessions: tuple[Open, ...] = ()
    devices: tuple[KnownDevice, ...] = ()
    networks: tuple[NetworkFact, ...] = ()
    enrolments: tuple[Standing, ...] = ()


class LoggedIn(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A login; `session_id` is the one it got, or one that it would have got.

    `succeeded` is what the platform said of it. `device` is what was
    recognised (None: none). `strangers` are failed logins of others from the
    same place, where a rule asks for them.
    """

    at: datetime
    session_id: str
    succeeded: bool
    device_id: UUID | None
    device_class: str
    app: str | None
    browser: str | None
    os: str | None
    address: Address | None
    place: Place | None
    strangers: tuple[FailureFact, ...] = ()


class Used(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A counted interaction of a session."""

    at: datetime
    session_id: str
    activity: Activity
    product_id: str | None
    address: Address | None
    place: Place | None


class Over(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session that somebody ended: the student, the platform, an operator."""

    at: datetime
    session_id: str


Event: TypeAlias = LoggedIn | Used | Over


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a history is played under: the rules, in order, in force `since` a time; how long sessions live.

    `quiet` is the silence after which a case is over and another one begins.
    """

    rules: tuple[Rule, ...]
    since: datetime
    idle: timedelta
    lifetime: timedelta
    quiet: timedelta

    def wants(self, *kinds: type) -> bool:
        """Whether a rule counts by one of these parameters."""
        return any(isinstance(rule.params, kinds) for rule in self.rules)


class Replay:
    """One member's state; events are fed in order of time."""

    def __init__(self, past: Past, terms: Terms) -> None:
        self._past = past
        self._terms = terms
        self._open = {each.fact.id: each for each in past.sessions}
        self._devices = {each.fact.id: _unmarked(each.fact) for each in past.devices if each.there}
        self._marks = {each.fact.id: each for each in past.devices if _marked(each)}
        self._networks = {(each.session_id, each.address.text): each for each in past.networks}
        self._failures: list[FailureFact] = []
        self._succeeded: dict[UUID | None, datetime] = {}
        self._cases: list[CaseFact] = []
        self._quiet_since: dict[tuple[UUID, str], datetime] = {}
        self._enrolments: dict[str, EnrolmentFact] = {}
        self._standings = list(reversed(past.enrolments))
        self._looks_at_networks = terms.wants(NetworkLimit, ImpossibleTravel, CopiedSession)
        self._reach = max((reach(r.params) for r in terms.rules if isinstance(r.params, LoginFailures)), default=None)
        self._escalates = any(rule.escalation is not None for rule in terms.rules)

    def feed(self, event: Event) -> Decision | None:
        """Play one event; what was decided, None where nothing is: the session is over, or never began."""
        rules = self._terms.rules if event.at >= self._terms.since else ()
        match event:
            case Used():
                return self._used(event, rules)
            case LoggedIn(succeeded=True):
                return self._logged_in(event, rules)
            case LoggedIn():
                return self._failed(event, rules)
            case Over():
                self._open.pop(event.session_id, None)
                return None

    def open_sessions(self) -> frozenset[str]:
        """The sessions that have not been ended."""
        return frozenset(self._open)

    def _used(self, event: Used, rules: Sequence[Rule]) -> Decision | None:
        found = self._open.get(event.session_id)
        if found is None or self._over(found, event.at):
            return None
        session = found.fact
        device = self._device(session.device_id, event.at)
        facts = self._facts(
            event,
            stage=Stage.CHECK,
            session=session,
            device=device,
            without=(session.id,),
            product_id=event.product_id,
            activity=event.activity,
        )
        decision = self._judged(rules, facts)
        allowed = decision.outcome is Outcome.ALLOW
        self._note_use(rules, facts, allowed=allowed)
        if decision.ends:
            del self._open[session.id]
        if allowed:
            moved = msgspec.structs.replace(session, last_activity=event.at, last_kind=event.activity)
            self._open[session.id] = Open(fact=moved, expires_at=found.expires_at)
            if session.device_id in self._devices:
                known = self._devices[session.device_id]
                self._devices[session.device_id] = msgspec.structs.replace(known, last_seen=event.at)
        return decision

    def _logged_in(self, event: LoggedIn, rules: Sequence[Rule]) -> Decision:
        self._sweep(event.at)
        device = self._recognised(event)
        own = (each.fact.id for each in self._open.values() if each.fact.device_id == event.device_id)
        replaced = () if device.new else tuple(own)
        session = _asked_for(event)
        facts = self._facts(
            event,
            stage=Stage.LOGIN,
            session=session,
            device=device,
            without=(*replaced, session.id),
            browser=event.browser,
            os=event.os,
            succeeded_at=self._succeeded.get(None if device.new else device.id),
            strangers=event.strangers,
        )
        decision = self._judged(rules, facts)
        allowed = decision.outcome is Outcome.ALLOW
        if allowed:
            for each in (*replaced, *decision.evict):
                self._open.pop(each, None)
            self._open[session.id] = Open(fact=session, expires_at=event.at + self._terms.lifetime)
            self._succeeded |= dict.fromkeys((device.id, None) if device.new else (device.id,), event.at)
        self._admit(device, event, rules, allowed=allowed)
        self._note_login(rules, facts, allowed=allowed)
        return decision

    def _failed(self, event: LoggedIn, rules: Sequence[Rule]) -> Decision | None:
        device = self._device(event.device_id, event.at)
        own = None if device is None else device.id
        facts = self._facts(
            event,
            stage=Stage.LOGIN,
            session=_asked_for(event),
            device=device,
            without=(),
            succeeded_at=self._succeeded.get(own),
            strangers=event.strangers,
        )
        decision = mild(self._judged(of_failure(rules), facts))
        if decision.outcome is Outcome.ALLOW and self._reach is not None:
            self._failures.append(FailureFact(at=event.at, address=event.address, device_id=own))
        return decision

    def _judged(self, rules: Sequence[Rule], facts: Facts) -> Decision:
        """Judge, and open the cases that escalation counts; without rules nothing is found."""
        if not rules:
            return NOTHING
        decision = judge(rules, facts)
        if self._escalates:
            self._note_cases(decision, facts.now)
        return decision

    def _facts(
        self,
        event: LoggedIn | Used,
        *,
        stage: Stage,
        session: SessionFact,
        device: DeviceFact | None,
        without: Sequence[str],
        product_id: str | None = None,
        activity: Activity | None = None,
        browser: str | None = None,
        os: str | None = None,
        succeeded_at: datetime | None = None,
        strangers: tuple[FailureFact, ...] = (),
    ) -> Facts:
        """Everything that is known at the time of the event."""
        at, past = event.at, self._past
        return Facts(
            now=at,
            stage=stage,
            session=session,
            device=device,
            address=event.address,
            others=self._others(at, without),
            other_devices=self._other_devices(at, None if device is None else device.id),
            tags=past.tags,
            product_id=product_id,
            staff=past.staff,
            exempt=_within(past.exempt, at) > 0,
            place=event.place,
            browser=browser,
            os=os,
            activity=activity,
            networks=tuple(self._networks.values()),
            failures=(*self._recent_failures(at), *strangers),
            succeeded_at=succeeded_at,
            enrolments=self._enrolled(at),
            cases=tuple(self._cases),
            extra_sessions=_within(past.extra_sessions, at),
            extra_devices=_within(past.extra_devices, at),
        )

    def _other_devices(self, at: datetime, device_id: UUID | None) -> tuple[DeviceFact, ...]:
        if not self._marks:
            return tuple(each for each in self._devices.values() if each.id != device_id)
        others = (self._device(each, at, known=True) for each in self._devices if each != device_id)
        return tuple(each for each in others if each is not None)

    def _others(self, at: datetime, without: Sequence[str]) -> tuple[SessionFact, ...]:
        return tuple(
            each.fact for each in self._open.values() if each.fact.id not in without and not self._over(each, at)
        )

    def _over(self, session: Open, at: datetime) -> bool:
        return at >= session.expires_at or at >= session.fact.last_activity + self._terms.idle

    def _sweep(self, at: datetime) -> None:
        """Let go of sessions that are over: they do not come back."""
        for each in [each.fact.id for each in self._open.values() if self._over(each, at)]:
            del self._open[each]

    def _recognised(self, event: LoggedIn) -> DeviceFact:
        """The device of a login, known or new."""
        if event.device_id is None:
            raise ValueError("a login of the member himself comes from some device")
        return self._device(event.device_id, event.at) or DeviceFact(
            id=event.device_id,
            access=Access.DEFAULT,
            admitted_at=None,
            last_seen=event.at,
            device_class=event.device_class,
            new=True,
            browser=event.browser,
            os=event.os,
        )

    def _device(self, device_id: UUID | None, at: datetime, *, known: bool = False) -> DeviceFact | None:
        """A device as it stands at a time; one that was forgotten only when it is asked for as a `known` one."""
        fact = None if device_id is None else self._devices.get(device_id)
        mark = None if fact is None else self._marks.get(fact.id)
        if fact is None or mark is None:
            return fact
        if mark.forgotten_at is not None and mark.forgotten_at <= at:
            return msgspec.structs.replace(fact, forgotten=True, admitted_at=None) if known else None
        if mark.access_at is None or mark.access_at <= at:
            return msgspec.structs.replace(fact, access=mark.fact.access)
        return fact

    def _admit(self, device: DeviceFact, event: LoggedIn, rules: Sequence[Rule], *, allowed: bool) -> None:
        """Keep the device as a login leaves it."""
        kept = self._devices.get(device.id, device)
        if allowed:
            since = place_since(device.admitted_at, device.last_seen, rules, event.at)
            first = device.first or since
            kept = msgspec.structs.replace(kept, admitted_at=since, first_admitted_at=first, last_seen=event.at)
        self._devices[device.id] = msgspec.structs.replace(kept, new=False) if kept.new else kept

    def _note_use(self, rules: Sequence[Rule], facts: Facts, *, allowed: bool) -> None:
        """Keep where a session was used from, as a check does."""
        noted = sighting(rules, facts, admitted=allowed) if self._looks_at_networks else None
        if noted is not None:
            self._keep_network(noted.network)

    def _note_login(self, rules: Sequence[Rule], facts: Facts, *, allowed: bool) -> None:
        """Keep where a login came from; one that is refused has no session, and moves nothing that is known."""
        if not self._looks_at_networks or facts.address is None:
            return
        at, session_id = facts.now, facts.session.id if allowed else None
        held = self._networks.get((session_id, facts.address.text))
        if held is not None and not allowed:
            return
        last = None if held is None else held.admitted_at
        self._keep_network(
            NetworkFact(
                address=facts.address,
                place=facts.place,
                session_id=session_id,
                device_id=facts.session.device_id,
                first_at=at if held is None else held.first_at,
                last_at=at,
                admitted_at=admitted_since(last, held.last_at if held else at, rules, at) if allowed else None,
            )
        )

    def _keep_network(self, network: NetworkFact) -> None:
        """Keep it, and of too many the newest, as a snapshot does."""
        self._networks[network.session_id, network.address.text] = network
        self._forget_networks()

    def _forget_networks(self) -> None:
        if len(self._networks) > 2 * MOST_NETWORKS:
            newest = sorted(self._networks.items(), key=lambda each: each[1].last_at, reverse=True)
            self._networks = dict(newest[:MOST_NETWORKS])

    def _recent_failures(self, at: datetime) -> list[FailureFact]:
        if self._reach is not None:
            since = at - self._reach
            self._failures = [each for each in self._failures if each.at > since]
        return self._failures

    def _enrolled(self, at: datetime) -> tuple[EnrolmentFact, ...]:
        while self._standings and ((since := self._standings[-1].at) is None or since <= at):
            standing = self._standings.pop()
            self._enrolments.pop(standing.product_id, None)
            if standing.fact is not None:
                self._enrolments[standing.product_id] = standing.fact
        return tuple(self._enrolments.values())

    def _note_cases(self, decision: Decision, at: datetime) -> None:
        """Open or go on with the cases that escalation counts."""
        for step in decision.fired:
            if step.finding is None or step.effect is Effect.EXEMPT:
                continue
            case = (step.rule.id, step.finding.subject)
            last = self._quiet_since.get(case)
            if last is None or last < at - self._terms.quiet:
                self._cases.append(CaseFact(rule_id=step.rule.id, at=at))
            self._quiet_since[case] = at


NOTHING: Final = Decision(outcome=Outcome.ALLOW)


def _asked_for(event: LoggedIn) -> SessionFact:
    """The session that a login asks for."""
    return SessionFact(
        id=event.session_id,
        device_id=event.device_id,
        started_at=event.at,
        last_activity=event.at,
        app=event.app,
        device_class=event.device_class,
    )


def _marked(device: KnownDevice) -> bool:
    return device.forgotten_at is not None or device.fact.access is not Access.DEFAULT


def _unmarked(device: DeviceFact) -> DeviceFact:
    """The device before any operator said anything about it."""
    return msgspec.structs.replace(device, access=Access.DEFAULT)


def _within(spans: Sequence[Span], at: datetime) -> int:
    return sum(at in span for span in spans)
