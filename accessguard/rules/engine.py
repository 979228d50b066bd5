"""From (rules, facts) to a decision with its trace. The only place that knows modes, actions and precedence."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from accessguard.rules.address import address_not_allowed, denied_address
from accessguard.rules.copy import copied_session
from accessguard.rules.device import too_many_devices, too_many_new_devices
from accessguard.rules.enrolment import not_enrolled
from accessguard.rules.escalation import action_of
from accessguard.rules.explain import blind, count
from accessguard.rules.login import too_many_failures
from accessguard.rules.model import (
    EVERYBODY,
    Access,
    Action,
    AddressList,
    AsnList,
    Code,
    CopiedSession,
    CountryList,
    Decision,
    DeviceChurn,
    DeviceLimit,
    Effect,
    EnrolmentNeeded,
    Facts,
    Finding,
    ImpossibleTravel,
    Kind,
    LoginFailures,
    Mode,
    NetworkLimit,
    Outcome,
    Rule,
    SessionLimit,
    Stage,
    Step,
)
from accessguard.rules.network import too_many_networks
from accessguard.rules.place import country_not_allowed, denied_country, denied_operator
from accessguard.rules.session import EVICTING, too_many_sessions
from accessguard.rules.travel import impossible_travel

PRECEDENCE = {kind: place for place, kind in enumerate(Kind)}
DEVICE_KINDS = frozenset({Kind.DEVICE_LIMIT, Kind.DEVICE_CHURN})
BEFORE_MEMBER = frozenset({Kind.IP_DENY, Kind.IP_ALLOW_ONLY, Kind.COUNTRY_DENY, Kind.COUNTRY_ALLOW_ONLY, Kind.ASN_DENY})
OUTCOMES = {Effect.DENIED: Outcome.DENY, Effect.ENDED: Outcome.DENY, Effect.CHALLENGED: Outcome.CHALLENGE}


def in_order(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules that are looked at, by precedence of kind, then priority (smaller first), the narrower limit, then id."""
    looked_at = (rule for rule in rules if rule.mode is not Mode.OFF)
    return tuple(sorted(looked_at, key=lambda rule: (PRECEDENCE[rule.kind], rule.priority, _width(rule), rule.id)))


def of_failure(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Of rules in order, those that a failed login is judged by: on where it came from, and on failures before it."""
    return tuple(rule for rule in rules if rule.kind in BEFORE_MEMBER or rule.kind is Kind.LOGIN_FAILURES)


def judge(rules: Sequence[Rule], facts: Facts) -> Decision:
    """Decide on `facts` under `rules`, which stand in the order that `in_order` gave.

    A device that an operator blocked is refused before any rule. The first
    enforced denial or challenge decides; every rule that fired is in the trace.
    Staff is never looked at; an exempt member is, but nothing is enforced.
    """
    return _judge(rules, facts, explained=False)


def explain(rules: Sequence[Rule], facts: Facts) -> Decision:
    """The same decision, with what each rule counted in its step even where it found nothing."""
    return _judge(rules, facts, explained=True)


def _judge(rules: Sequence[Rule], facts: Facts, *, explained: bool) -> Decision:
    if facts.device is not None and facts.device.access is Access.BLOCKED:
        return Decision(outcome=Outcome.DENY, code=Code.DEVICE_BLOCKED)
    if facts.staff:
        return Decision(outcome=Outcome.ALLOW, exempt=True)
    steps = _walk(rules, facts, explained=explained)
    degraded = blind(rules, facts)
    decisive = next((step for step in steps if step.effect in OUTCOMES), None)
    if decisive is None or decisive.finding is None or decisive.effect is None:
        return Decision(outcome=Outcome.ALLOW, steps=steps, exempt=facts.exempt, degraded=degraded)
    return Decision(
        outcome=OUTCOMES[decisive.effect],
        code=decisive.finding.code,
        step=decisive,
        steps=tuple(_without_ending(step, decisive) for step in steps),
        degraded=degraded,
        swaps_left=_swaps_left(decisive.rule, facts),
    )


def _width(rule: Rule) -> int:
    match rule.params:
        case SessionLimit() | DeviceLimit() | NetworkLimit() | LoginFailures():
            return rule.params.max
        case DeviceChurn():
            return rule.params.max_new
        case _:
            return 0


def _walk(rules: Sequence[Rule], facts: Facts, *, explained: bool) -> tuple[Step, ...]:
    """Look at each rule in turn; what one evicts, the next no longer counts."""
    steps = []
    for rule in rules:
        step = _look(rule, facts)
        if explained and step.skipped is None:
            step = msgspec.structs.replace(step, count=count(rule, facts))
        steps.append(step)
        if step.effect is Effect.EVICTED and step.finding is not None:
            gone = step.finding.evict
            facts = msgspec.structs.replace(facts, others=tuple(o for o in facts.others if o.id not in gone))
    return tuple(steps)


def _look(rule: Rule, facts: Facts) -> Step:
    reason = not_for(rule, facts)
    if reason is not None:
        return Step(rule=rule, finding=None, effect=None, skipped=reason)
    action = rule.action if rule.escalation is None else action_of(rule, rule.escalation, facts)
    finding = _find(rule, facts, action)
    if finding is None:
        return Step(rule=rule, finding=None, effect=None, action=action)
    settled = any(
        each.rule_id == rule.id and each.subject == finding.subject and each.until > facts.now for each in facts.settled
    )
    effect = _effect(rule, action, facts, settled=settled)
    return Step(rule=rule, finding=finding, effect=effect, action=action, settled=settled)


def not_for(rule: Rule, facts: Facts) -> str | None:
    """Why a rule is not about these facts; None when it is."""
    match rule.kind:
        case Kind.SESSION_LIMIT if isinstance(rule.params, SessionLimit) and rule.params.activities is not None:
            if facts.stage is Stage.LOGIN or facts.activity not in rule.params.activities:
                return "activities"
        case Kind.LOGIN_FAILURES if facts.stage is not Stage.LOGIN:
            return "stage"
        case Kind.DEVICE_LIMIT | Kind.DEVICE_CHURN:
            if facts.device is not None and facts.device.access is Access.ALLOWED:
                return "device_allowed"
        case _:
            pass
    return None if rule.scope is EVERYBODY else _out_of_scope(rule, facts)


def _out_of_scope(rule: Rule, facts: Facts) -> str | None:
    scope = rule.scope
    if (scope.tags and not scope.tags & facts.tags) or scope.except_tags & facts.tags:
        return "tags"
    if scope.products and facts.product_id not in scope.products:
        return "products"
    if scope.apps and facts.session.app not in scope.apps:
        return "apps"
    if scope.device_classes and facts.session.device_class not in scope.device_classes:
        return "device_classes"
    return None


def _find(rule: Rule, facts: Facts, action: Action) -> Finding | None:  # noqa: C901, PLR0911 - one line for each kind
    match rule.params:
        case SessionLimit() as params:
            return too_many_sessions(facts, params, action)
        case DeviceLimit() as params:
            return too_many_devices(facts, params)
        case DeviceChurn() as params:
            return too_many_new_devices(facts, params)
        case NetworkLimit() as params:
            return too_many_networks(facts, params)
        case AddressList() as params:
            return (denied_address if rule.kind is Kind.IP_DENY else address_not_allowed)(facts, params)
        case CountryList() as params:
            return (denied_country if rule.kind is Kind.COUNTRY_DENY else country_not_allowed)(facts, params)
        case AsnList() as params:
            return denied_operator(facts, params)
        case ImpossibleTravel() as params:
            return impossible_travel(facts, params)
        case CopiedSession() as params:
            return copied_session(facts, params)
        case LoginFailures() as params:
            return too_many_failures(facts, params)
        case EnrolmentNeeded() as params:
            return not_enrolled(facts, params)


def _effect(rule: Rule, action: Action, facts: Facts, *, settled: bool) -> Effect:
    """What becomes of a finding; at a login there is no session yet that could be ended."""
    if facts.exempt:
        return Effect.EXEMPT
    login = facts.stage is Stage.LOGIN
    if rule.mode is Mode.OBSERVE or settled or action is Action.LOG or (login and action is Action.END_SESSION):
        return Effect.LOGGED
    if action in EVICTING and login:
        return Effect.EVICTED
    return {Action.CHALLENGE: Effect.CHALLENGED, Action.END_SESSION: Effect.ENDED}.get(action, Effect.DENIED)


def _without_ending(step: Step, decisive: Step) -> Step:
    """Who is not let in ends nobody's session: what would have been ended is only logged."""
    if step is decisive or step.effect not in {Effect.EVICTED, Effect.ENDED}:
        return step
    return msgspec.structs.replace(step, effect=Effect.LOGGED)


def _swaps_left(rule: Rule, facts: Facts) -> int:
    if rule.swaps is None:
        return 0
    used = next((times for rule_id, times in facts.swaps_used if rule_id == rule.id), 0)
    return max(0, rule.swaps.max - used)
