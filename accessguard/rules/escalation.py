"""A rule's action, grown with the cases it has opened of late; it calms down as they grow old."""

from __future__ import annotations

from accessguard.rules.model import Action, Escalation, Facts, Kind, Rule

# How strictly an action treats whoever it is about; escalation never makes a rule milder.
STRICT = {Action.DENY: 2, Action.DENY_NEW: 2, Action.END_SESSION: 2, Action.CHALLENGE: 1}

STRICTEST = {
    Kind.COUNTRY_DENY: Action.DENY,
    Kind.COUNTRY_ALLOW_ONLY: Action.DENY,
    Kind.ASN_DENY: Action.DENY,
    Kind.SESSION_LIMIT: Action.DENY_NEW,
    Kind.DEVICE_LIMIT: Action.DENY_NEW,
    Kind.DEVICE_CHURN: Action.DENY_NEW,
    Kind.NETWORK_LIMIT: Action.DENY_NEW,
    Kind.IMPOSSIBLE_TRAVEL: Action.DENY_NEW,
    Kind.COPIED_SESSION: Action.END_SESSION,
}


def action_of(rule: Rule, escalation: Escalation, facts: Facts) -> Action:
    """The action that a rule has come to, for the member asked about."""
    since = facts.now - escalation.within
    cases = sum(each.rule_id == rule.id and each.at > since for each in facts.cases)
    if escalation.deny_after is not None and cases >= escalation.deny_after:
        grown = STRICTEST.get(rule.kind, rule.action)
    elif escalation.challenge_after is not None and cases >= escalation.challenge_after:
        grown = Action.CHALLENGE
    else:
        return rule.action
    return grown if STRICT.get(grown, 0) > STRICT.get(rule.action, 0) else rule.action
