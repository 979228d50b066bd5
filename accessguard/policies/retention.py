"""A rule cannot look back further than what it looks at is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final

from accessguard.errors import Problem
from accessguard.policies.model import Retention, RuleRecord, parse
from accessguard.rules.model import AddressList, Kind, Rule

# What a kind counts; whatever is not named here counts what logins left behind.
LOOKED_AT: Final = {Kind.SESSION_LIMIT: "activity_days"}
LOGINS: Final = "logins_days"


def look_back(rule: Rule) -> timedelta | None:
    """How far back a rule looks; None where it does not, or looks at devices for ever, which are kept for ever."""
    return None if isinstance(rule.params, AddressList) else rule.params.window


def beyond(rule: Rule, retention: Retention) -> str | None:
    """The field of `retention` that is shorter than the rule's window; None when none is."""
    window = look_back(rule)
    kept = LOOKED_AT.get(rule.kind, LOGINS)
    return kept if window is not None and window > timedelta(days=getattr(retention, kept)) else None


def window_problem(rule: Rule, retention: Retention) -> Problem | None:
    """What is wrong with saving this rule; None when nothing is."""
    kept = beyond(rule, retention)
    if kept is None:
        return None
    window = "window_s" if rule.kind is Kind.SESSION_LIMIT else "window_days"
    detail = f"is longer than what it counts is kept: settings.retention.{kept} is {getattr(retention, kept)}"
    return Problem(pointer=f"/params/{window}", detail=detail)


def retention_problems(retention: Retention, records: Iterable[RuleRecord]) -> Iterator[Problem]:
    """What is wrong with keeping things for so long: each stored rule that looks back further, those that are off included."""
    for record in records:
        kept = beyond(parse(record.body, id=record.id, version=record.version), retention)
        if kept is not None:
            detail = f"the rule {record.body.name or record.body.kind} ({record.id}) looks back further"
            yield Problem(pointer=f"/retention/{kept}", detail=detail)
