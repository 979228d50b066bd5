"""A rule cannot look back further than what it looks at is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final

import msgspec

from accessguard.errors import Problem
from accessguard.policies.model import Retention, RuleRecord, parse
from accessguard.policies.windows import Ledger, looks
from accessguard.rules.model import Rule

# The field of `retention` that says how long a ledger is kept.
KEPT: Final = {
    Ledger.SESSIONS: "activity_days",
    Ledger.DEVICES: "logins_days",
    Ledger.NETWORKS: "logins_days",
    Ledger.LOGINS: "logins_days",
    Ledger.VIOLATIONS: "violations_days",
    Ledger.CHALLENGES: "violations_days",
}
# Ledgers of addresses, which may be cut short before their line goes.
OF_ADDRESSES: Final = frozenset({Ledger.NETWORKS, Ledger.LOGINS})
CUT: Final = "truncate_ip_after_days"


class Beyond(msgspec.Struct, frozen=True, kw_only=True):
    """A window of a rule (`pointer` in its body) that is longer than the `days` of the field `kept`."""

    pointer: str
    kept: str
    days: int


def beyond(rule: Rule, retention: Retention) -> Iterator[Beyond]:
    """Every window of a rule that is longer than what it counts is kept; "for ever" is about what is never dropped."""
    for look in looks(rule):
        fields = (KEPT[look.ledger], *((CUT,) if look.ledger in OF_ADDRESSES else ()))
        for kept in fields:
            days: int | None = getattr(retention, kept)
            if days is not None and look.window > timedelta(days=days):
                yield Beyond(pointer=look.pointer, kept=kept, days=days)


def window_problems(rule: Rule, retention: Retention) -> Iterator[Problem]:
    """What is wrong with saving this rule."""
    for each in beyond(rule, retention):
        detail = f"looks back further than what it counts is kept: settings.retention.{each.kept} is {each.days}"
        yield Problem(pointer=each.pointer, detail=detail)


def retention_problems(retention: Retention, records: Iterable[RuleRecord]) -> Iterator[Problem]:
    """What is wrong with keeping things for so long: each stored rule that looks back further, those that are off included."""
    for record in records:
        for each in beyond(parse(record.body, id=record.id, version=record.version), retention):
            detail = f"the rule {record.body.name or record.body.kind} ({record.id}) looks back further"
            yield Problem(pointer=f"/retention/{each.kept}", detail=detail)
