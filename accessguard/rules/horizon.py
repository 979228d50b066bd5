"""How long a decision holds: until when the passing of time alone cannot change it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from accessguard.rules.copy import TURN
from accessguard.rules.engine import not_for
from accessguard.rules.enrolment import changes
from accessguard.rules.login import reach
from accessguard.rules.model import (
    CopiedSession,
    DeviceChurn,
    DeviceLimit,
    EnrolmentNeeded,
    Facts,
    ImpossibleTravel,
    LoginFailures,
    NetworkLimit,
    Rule,
    SessionLimit,
    Signal,
)
from accessguard.rules.travel import journeys, possible_at


def holds_until(rules: Sequence[Rule], facts: Facts) -> datetime | None:
    """The first instant after `facts.now` at which these facts might be judged otherwise; None when there is none.

    A lower bound: nothing changes before it, something may change at it.
    What others do meanwhile is not time's doing, and is not foreseen.
    """
    return min((at for at in _turning_points(rules, facts) if at > facts.now), default=None)


def _turning_points(rules: Sequence[Rule], facts: Facts) -> Iterator[datetime]:
    if facts.changes_at is not None:
        yield facts.changes_at
    for settled in facts.settled:
        yield settled.until
    for rule in rules:
        if rule.escalation is not None:
            within = rule.escalation.within
            yield from (case.at + within for case in facts.cases if case.rule_id == rule.id)
        if not_for(rule, facts) is None:
            yield from _of_rule(rule, facts)


def _of_rule(rule: Rule, facts: Facts) -> Iterator[datetime]:  # noqa: C901 - one case for each kind of rule
    match rule.params:
        case SessionLimit() as params:
            yield from _sessions(facts, params)
        case DeviceLimit() as params:
            yield from _devices(facts, params)
        case DeviceChurn() as params:
            yield from _new_devices(facts, params)
        case NetworkLimit() as params:
            if len(facts.networks) >= params.max:
                yield from (each.last_at + params.window for each in facts.networks if each.admitted_at is not None)
        case ImpossibleTravel() as params:
            yield from (possible_at(each[3], each[1], params) for each in journeys(facts, params))
        case CopiedSession(signal=signal):
            if signal is not Signal.BROWSER:
                yield from _turns(facts)
        case EnrolmentNeeded():
            for enrolment in facts.enrolments or ():
                yield from (at for at in changes(enrolment) if at is not None)
        case LoginFailures() as params:
            spans = (params.lock, params.window, reach(params))
            yield from (each.at + span for each in facts.failures for span in spans)
        case _:
            return


def _sessions(facts: Facts, limit: SessionLimit) -> Iterator[datetime]:
    """With fewer others than places, none that leaves makes a difference."""
    if len(facts.others) < limit.max + facts.extra_sessions:
        return
    yield facts.session.last_activity + limit.window
    yield from (other.last_activity + limit.window for other in facts.others)


def _devices(facts: Facts, limit: DeviceLimit) -> Iterator[datetime]:
    if facts.device is None or limit.window is None or len(facts.other_devices) < limit.max + facts.extra_devices:
        return
    yield from (each.last_seen + limit.window for each in (facts.device, *facts.other_devices))


def _new_devices(facts: Facts, limit: DeviceChurn) -> Iterator[datetime]:
    if facts.device is None or len(facts.other_devices) < limit.max_new + facts.extra_devices:
        return
    devices = (facts.device, *facts.other_devices)
    yield from (each.first + limit.window for each in devices if each.first is not None)


def _turns(facts: Facts) -> Iterator[datetime]:
    for network in facts.networks:
        if network.session_id == facts.session.id:
            yield network.last_at + TURN
            yield network.first_at + TURN
