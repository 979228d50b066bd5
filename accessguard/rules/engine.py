"""From (rules, facts) to a decision with its trace. The only place that knows modes, actions and precedence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from accessguard.rules.address import address_not_allowed, denied_address
from accessguard.rules.device import too_many_devices
from accessguard.rules.model import (
    Access,
    Action,
    AddressList,
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
from accessguard.rules.session import EVICTING, too_many_sessions

PRECEDENCE = {kind: place for place, kind in enumerate(Kind)}
DEVICE_KINDS = frozenset({Kind.DEVICE_LIMIT})
ADDRESS_KINDS = frozenset({Kind.IP_DENY, Kind.IP_ALLOW_ONLY})


def in_order(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules that are looked at, by precedence of kind, then priority (smaller first), the narrower limit, then id."""
    looked_at = (rule for rule in rules if rule.mode is not Mode.OFF)
    return tuple(sorted(looked_at, key=lambda rule: (PRECEDENCE[rule.kind], rule.priority, _width(rule), rule.id)))


def judge(rules: Sequence[Rule], facts: Facts) -> Decision:
    """Decide on `facts` under `rules`, which stand in the order that `in_order` gave.

    A device that an operator blocked is refused before any rule. The first
    enforced denial decides; every rule that fired is in the trace. Staff is
    never looked at; an exempt member is, but nothing is enforced.
    """
    if facts.device is not None and facts.device.access is Access.BLOCKED:
        return Decision(outcome=Outcome.DENY, code=Code.DEVICE_BLOCKED)
    if facts.staff:
        return Decision(outcome=Outcome.ALLOW, exempt=True)
    steps = tuple(_walk(rules, facts))
    denial = next((step for step in steps if step.effect is Effect.DENIED), None)
    degraded = facts.address is None and any(rule.kind in ADDRESS_KINDS for rule in rules)
    if denial is None or denial.finding is None:
        return Decision(outcome=Outcome.ALLOW, steps=steps, exempt=facts.exempt, degraded=degraded)
    kept = tuple(_without_eviction(step) for step in steps)
    return Decision(outcome=Outcome.DENY, code=denial.finding.code, step=denial, steps=kept, degraded=degraded)


def _width(rule: Rule) -> int:
    match rule.params:
        case SessionLimit() | DeviceLimit() | NetworkLimit() | LoginFailures():
            return rule.params.max
        case DeviceChurn():
            return rule.params.max_new
        case _:
            return 0


def _walk(rules: Sequence[Rule], facts: Facts) -> Iterator[Step]:
    """Look at each rule in turn; what one evicts, the next no longer counts."""
    for rule in rules:
        step = _look(rule, facts)
        yield step
        if step.effect is Effect.EVICTED and step.finding is not None:
            gone = step.finding.evict
            facts = msgspec.structs.replace(facts, others=tuple(o for o in facts.others if o.id not in gone))


def _look(rule: Rule, facts: Facts) -> Step:
    reason = _not_for(rule, facts)
    if reason is not None:
        return Step(rule=rule, finding=None, effect=None, skipped=reason)
    finding = _find(rule, facts)
    return Step(rule=rule, finding=finding, effect=None if finding is None else _effect(rule, facts))


def _not_for(rule: Rule, facts: Facts) -> str | None:
    """Why a rule is not about these facts; None when it is."""
    scope = rule.scope
    if rule.kind in DEVICE_KINDS and facts.device is not None and facts.device.access is Access.ALLOWED:
        return "device_allowed"
    if (scope.tags and not scope.tags & facts.tags) or scope.except_tags & facts.tags:
        return "tags"
    if scope.products and facts.product_id not in scope.products:
        return "products"
    if scope.apps and facts.session.app not in scope.apps:
        return "apps"
    if scope.device_classes and facts.session.device_class not in scope.device_classes:
        return "device_classes"
    return None


def _find(rule: Rule, facts: Facts) -> Finding | None:
    match rule.params:
        case AddressList() as params:
            return (denied_address if rule.kind is Kind.IP_DENY else address_not_allowed)(facts, params)
        case SessionLimit() as params:
            return too_many_sessions(facts, params, rule.action)
        case DeviceLimit() as params:
            return too_many_devices(facts, params)
        case _:
            return None


def _effect(rule: Rule, facts: Facts) -> Effect:
    if facts.exempt:
        return Effect.EXEMPT
    if rule.mode is Mode.OBSERVE or rule.action is Action.LOG:
        return Effect.LOGGED
    if rule.action in EVICTING and facts.stage is Stage.LOGIN:
        return Effect.EVICTED
    return Effect.DENIED


def _without_eviction(step: Step) -> Step:
    """A refused login ends nobody's session: what would have been evicted is only logged."""
    if step.effect is not Effect.EVICTED:
        return step
    return Step(rule=step.rule, finding=step.finding, effect=Effect.LOGGED)
