"""The limit on simultaneous sessions, decided by rank among the sessions that exist."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from accessguard.rules.model import Action, Code, Count, Facts, Finding, Per, SessionFact, SessionLimit, Stage

EVICTING = frozenset({Action.EVICT_OLDEST, Action.EVICT_IDLE, Action.EVICT_OTHERS})


def too_many_sessions(facts: Facts, limit: SessionLimit, action: Action) -> Finding | None:
    """Find a session that ranks behind as many active ones as the rule allows.

    Active: last activity younger than `limit.window`. With `evict_oldest` and
    `evict_others` the newest keep their place, with `evict_idle` the ones used
    last, otherwise the ones that hold a place longest. At a login an evicting
    action never refuses: the finding lists what it ends. A pass adds a place.
    """
    most = limit.max + facts.extra_sessions
    if len(facts.others) < most:
        return None
    horizon = facts.now - limit.window
    active = active_others(facts, limit, horizon)
    if len(active) < most:
        return None
    if facts.stage is Stage.LOGIN and action in EVICTING:
        return _overflow(facts, most, action, active)
    held = _active(facts.session, limit, horizon)
    ahead = [other for other in active if _ahead(other, facts, action, held=held)]
    if len(ahead) < most:
        return None
    frees = sorted(other.last_activity for other in ahead)[len(ahead) - most] + limit.window
    return _finding(facts, most, ahead, retry_at=frees)


def active_others(facts: Facts, limit: SessionLimit, horizon: datetime) -> list[SessionFact]:
    """The member's other sessions that take a place: active since `horizon`, in the unit of the limit."""
    active = [other for other in facts.others if _active(other, limit, horizon)]
    if limit.per is Per.MEMBER:
        return active
    return [other for other in active if _same(facts.session, other, limit.per)]


def count_sessions(facts: Facts, limit: SessionLimit) -> Count:
    """What the limit counts, the session asked about among them."""
    active = sorted(active_others(facts, limit, facts.now - limit.window), key=lambda other: other.rank)
    return Count(
        limit=limit.max + facts.extra_sessions,
        counted=len(active) + 1,
        sessions=tuple(other.id for other in active),
        times=tuple(other.last_activity for other in active),
    )


def _active(session: SessionFact, limit: SessionLimit, horizon: datetime) -> bool:
    return session.last_activity > horizon and (limit.activities is None or session.last_kind in limit.activities)


def _same(session: SessionFact, other: SessionFact, per: Per) -> bool:
    return session.device_class == other.device_class if per is Per.DEVICE_CLASS else session.app == other.app


def _ahead(other: SessionFact, facts: Facts, action: Action, *, held: bool) -> bool:
    """Whether `other` has the better right to a place.

    Without eviction a session that left the window has lost its place, so on
    its return it stands behind every active one, as a newcomer does.
    """
    session = facts.session
    match action:
        case Action.EVICT_OLDEST | Action.EVICT_OTHERS:
            return other.rank > session.rank
        case Action.EVICT_IDLE:
            return other.idle_rank > session.idle_rank
        case _:
            return facts.stage is Stage.LOGIN or not held or other.rank < session.rank


def _overflow(facts: Facts, most: int, action: Action, active: Sequence[SessionFact]) -> Finding:
    """The whole overflow of a login (L11), in the order in which it is ended."""
    surplus = len(active) + 1 - most
    by_idle = sorted(active, key=lambda other: other.idle_rank)
    by_age = sorted(active, key=lambda other: other.rank)
    ends = {Action.EVICT_OLDEST: by_age[:surplus], Action.EVICT_IDLE: by_idle[:surplus]}.get(action, by_age)
    return _finding(facts, most, active, evict=tuple(other.id for other in ends))


def _finding(
    facts: Facts,
    most: int,
    counted: Sequence[SessionFact],
    *,
    retry_at: datetime | None = None,
    evict: tuple[str, ...] = (),
) -> Finding:
    """The subject is the device, which outlives the session that a refused login never gets."""
    by_age = sorted(counted, key=lambda other: other.rank)
    return Finding(
        code=Code.SESSION_LIMIT,
        subject=str(facts.device.id) if facts.device else facts.session.id,
        limit=most,
        counted=len(by_age) + 1,
        retry_at=retry_at,
        sessions=tuple(other.id for other in by_age),
        times=tuple(other.last_activity for other in by_age),
        evict=evict,
    )
