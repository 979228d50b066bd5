"""From (rules, facts) to a decision with its trace. The only place that knows modes, actions and precedence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Never

import msgspec

from accessguard.rules.address import address_not_allowed, denied_address
from accessguard.rules.copy import WATCH, copied_session, unwatched
from accessguard.rules.device import too_many_devices, too_many_new_devices
from accessguard.rules.enrolment import not_enrolled
from accessguard.rules.escalation import action_of
from accessguard.rules.explain import blind, count
from accessguard.rules.login import too_many_failures
from accessguard.rules.model import (
    EVERYBODY,
    Access,
    Action,
    Code,
    Decision,
    DeviceChurn,
    DeviceLimit,
    Effect,
    Facts,
    Finding,
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
BEFORE_MEMBER = frozenset({Kind.IP_DENY, Kind.IP_ALLOW_ONLY, Kind.COUNTRY_DENY, Kind.COUNTRY_ALLOW_ONLY, Kind.ASN_DENY})
OUTCOMES = {Effect.DENIED: Outcome.DENY, Effect.ENDED: Outcome.DENY, Effect.CHALLENGED: Outcome.CHALLENGE}


def in_order(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules that are looked at, by precedence of kind, then priority (smaller first), the narrower limit, then id."""
    looked_at = (rule for rule in rules if rule.mode is not Mode.OFF)
    return tuple(sorted(looked_at, key=lambda rule: (PRECEDENCE[rule.kind], rule.priority, _width(rule), rule.id)))


def of_failure(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Of rules in order, those that a failed login is judged by: on where it came from, and on failures before it."""
    return tuple(rule for rule in rules if rule.kind in BEFORE_MEMBER or rule.kind is Kind.LOGIN_FAILURES)


def mild(decision: Decision) -> Decision:
    """The decision on a login that the platform refused anyway: there is nothing to challenge, it is only logged."""
    if decision.outcome is not Outcome.CHALLENGE:
        return decision
    steps = tuple(_only_logged(step) for step in decision.steps)
    return Decision(outcome=Outcome.ALLOW, steps=steps, exempt=decision.exempt, degraded=decision.degraded)


def judge(rules: Sequence[Rule], facts: Facts) -> Decision:
    """Decide on `facts` under `rules`, which stand in the order that `in_order` gave.

    A device that an operator blocked is refused before any rule. The first
    enforced denial or challenge decides; every rule that fired is in the trace.
    Staff is never looked at; an exempt member is, but nothing is enforced.
    A copied token or browser that no rule finds is recorded, where that is wanted.
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
    steps = _watched(_walk(rules, facts, explained=explained), facts)
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


def _watched(steps: tuple[Step, ...], facts: Facts) -> tuple[Step, ...]:
    """The steps, and one for what is recorded without a rule, unless a rule found a copy itself."""
    if any(step.finding is not None and step.rule.kind is Kind.COPIED_SESSION for step in steps):
        return steps
    finding = unwatched(facts)
    if finding is None:
        return steps
    effect = Effect.EXEMPT if facts.exempt else Effect.LOGGED
    return (*steps, Step(rule=WATCH, finding=finding, effect=effect, action=WATCH.action))


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
    passed_over = PASSED_OVER.get(rule.kind)
    reason = passed_over(rule, facts) if passed_over is not None else None
    if reason is not None or rule.scope is EVERYBODY:
        return reason
    return _out_of_scope(rule, facts)


def _other_activity(rule: Rule, facts: Facts) -> str | None:
    kinds = rule.params.activities if isinstance(rule.params, SessionLimit) else None
    if kinds is None or (facts.stage is Stage.CHECK and facts.activity in kinds):
        return None
    return "activities"


def _no_login(_: Rule, facts: Facts) -> str | None:
    return None if facts.stage is Stage.LOGIN else "stage"


def _allowed_device(_: Rule, facts: Facts) -> str | None:
    return "device_allowed" if facts.device is not None and facts.device.access is Access.ALLOWED else None


PASSED_OVER: Final[Mapping[Kind, Callable[[Rule, Facts], str | None]]] = {
    Kind.SESSION_LIMIT: _other_activity,
    Kind.LOGIN_FAILURES: _no_login,
    Kind.DEVICE_LIMIT: _allowed_device,
    Kind.DEVICE_CHURN: _allowed_device,
}


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


# Each kind with the function that finds its wrong; the one on sessions asks for the action besides.
FIND: Final[Mapping[Kind, Callable[[Facts, Never], Finding | None]]] = {
    Kind.IP_DENY: denied_address,
    Kind.IP_ALLOW_ONLY: address_not_allowed,
    Kind.COUNTRY_DENY: denied_country,
    Kind.COUNTRY_ALLOW_ONLY: country_not_allowed,
    Kind.ASN_DENY: denied_operator,
    Kind.LOGIN_FAILURES: too_many_failures,
    Kind.ENROLMENT: not_enrolled,
    Kind.DEVICE_LIMIT: too_many_devices,
    Kind.DEVICE_CHURN: too_many_new_devices,
    Kind.NETWORK_LIMIT: too_many_networks,
    Kind.IMPOSSIBLE_TRAVEL: impossible_travel,
    Kind.COPIED_SESSION: copied_session,
}


def _find(rule: Rule, facts: Facts, action: Action) -> Finding | None:
    """A table, for a dozen rules are tried on every beat: looking through their types one by one costs as much as they do."""
    params = rule.params
    if isinstance(params, SessionLimit):
        return too_many_sessions(facts, params, action)
    return FIND[rule.kind](facts, params)  # type: ignore[arg-type] # a rule's parameters are of its kind


def _effect(rule: Rule, action: Action, facts: Facts, *, settled: bool) -> Effect:
    """What becomes of a finding; at a login there is no session yet that could be ended.

    A passed challenge lets in whoever passed it. It keeps nobody else in: a
    login that evicts does so all the same, and refuses no one by it.
    """
    if facts.exempt:
        return Effect.EXEMPT
    login = facts.stage is Stage.LOGIN
    if rule.mode is Mode.OBSERVE or action is Action.LOG or (login and action is Action.END_SESSION):
        return Effect.LOGGED
    if action in EVICTING and login:
        return Effect.EVICTED
    if settled:
        return Effect.LOGGED
    return {Action.CHALLENGE: Effect.CHALLENGED, Action.END_SESSION: Effect.ENDED}.get(action, Effect.DENIED)


def _without_ending(step: Step, decisive: Step) -> Step:
    """Who is not let in ends nobody's session: what would have been ended is only logged."""
    if step is decisive or step.effect not in {Effect.EVICTED, Effect.ENDED}:
        return step
    return msgspec.structs.replace(step, effect=Effect.LOGGED)


def _only_logged(step: Step) -> Step:
    return msgspec.structs.replace(step, effect=Effect.LOGGED) if step.effect is Effect.CHALLENGED else step


def _swaps_left(rule: Rule, facts: Facts) -> int:
    if rule.swaps is None:
        return 0
    used = next((times for rule_id, times in facts.swaps_used if rule_id == rule.id), 0)
    return max(0, rule.swaps.max - used)
