"""The rule that a member must be enrolled now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from accessguard.rules.model import (
    Code,
    Count,
    EnrolmentFact,
    EnrolmentNeeded,
    EnrolmentStatus,
    Facts,
    Finding,
    Lapse,
)

# The one nearest to being active again explains best.
NEAREST = tuple(Lapse)


def not_enrolled(facts: Facts, params: EnrolmentNeeded) -> Finding | None:
    """Refuse whoever has no active enrolment in what is asked for.

    That is the product named in the question, where the rule is about it, else
    any of the rule's. Unread enrolments find nothing (degraded).
    """
    if facts.enrolments is None:
        return None
    wanted = _wanted(facts, params)
    held = _of(facts.enrolments, wanted)
    if any(active(each, facts.now) for each in held):
        return None
    again = [at for each in held if (at := opens_at(each, facts.now)) is not None]
    return Finding(
        code=Code.NO_ACTIVE_ENROLMENT,
        subject=",".join(sorted(wanted))[:128] if wanted else "any",
        counted=len(held),
        retry_at=min(again, default=None),
        lapse=min((_lapse(each, facts.now) for each in held), key=NEAREST.index, default=Lapse.NEVER_ENROLLED),
    )


def count_enrolments(facts: Facts, params: EnrolmentNeeded) -> Count:
    """How many enrolments in what is asked for are active."""
    held = _of(facts.enrolments or (), _wanted(facts, params))
    return Count(counted=sum(active(each, facts.now) for each in held))


def active(enrolment: EnrolmentFact, now: datetime) -> bool:
    """Whether an enrolment gives access at `now`; a frozen one thaws at its date by itself."""
    if enrolment.starts_at > now or (enrolment.ends_at is not None and enrolment.ends_at <= now):
        return False
    if enrolment.status is EnrolmentStatus.FROZEN:
        return enrolment.reopens_at is not None and enrolment.reopens_at <= now
    return enrolment.status is EnrolmentStatus.ACTIVE


def opens_at(enrolment: EnrolmentFact, now: datetime) -> datetime | None:
    """When an enrolment that is not active becomes so by itself; None when it does not."""
    frozen = enrolment.status is EnrolmentStatus.FROZEN
    if enrolment.status is EnrolmentStatus.DEACTIVATED or (frozen and enrolment.reopens_at is None):
        return None
    at = max(enrolment.starts_at, enrolment.reopens_at) if frozen and enrolment.reopens_at else enrolment.starts_at
    over = enrolment.ends_at is not None and enrolment.ends_at <= at
    return at if at > now and not over else None


def changes(enrolment: EnrolmentFact) -> tuple[datetime | None, ...]:
    """Every time at which an enrolment may begin or cease to be active by itself."""
    return (enrolment.starts_at, enrolment.ends_at, enrolment.reopens_at)


def _wanted(facts: Facts, params: EnrolmentNeeded) -> frozenset[str] | None:
    asked = facts.product_id
    if asked is not None and (params.products is None or asked in params.products):
        return frozenset({asked})
    return params.products


def _of(enrolments: Sequence[EnrolmentFact], wanted: frozenset[str] | None) -> list[EnrolmentFact]:
    return [each for each in enrolments if wanted is None or each.product_id in wanted]


def _lapse(enrolment: EnrolmentFact, now: datetime) -> Lapse:
    """Why an enrolment is not active."""
    if enrolment.ends_at is not None and enrolment.ends_at <= now:
        return Lapse.EXPIRED
    if enrolment.status is EnrolmentStatus.ACTIVE:
        return Lapse.NOT_STARTED
    frozen = enrolment.status is EnrolmentStatus.FROZEN
    thawed = frozen and enrolment.reopens_at is not None and enrolment.reopens_at <= now
    if thawed:
        return Lapse.NOT_STARTED
    return Lapse.FROZEN if frozen else Lapse.DEACTIVATED
