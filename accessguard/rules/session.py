"""The limit on simultaneous sessions, decided by rank among the sessions that exist."""

from __future__ import annotations

from collections.abc import Sequence

from accessguard.rules.model import Action, Code, Facts, Finding, Per, SessionFact, SessionLimit, Stage


def too_many_sessions(facts: Facts, limit: SessionLimit, action: Action) -> Finding | None:
    """Find a session that ranks behind as many active ones as the rule allows.

    Active: last activity younger than `limit.window`. With `evict_oldest` and
    `evict_others` the newest keep their place, with `evict_idle` the ones used
    last, otherwise the ones that hold a place longest. At a login an evicting
    action never refuses: the finding lists what it ends.
    """
    horizon = facts.now - limit.window
    active = [o for o in facts.others if o.last_activity > horizon and _same(facts.session, o, limit.per)]
    if facts.stage is Stage.LOGIN and action in EVICTING:
        return _overflow(facts, limit, action, active)
    ahead = [other for other in active if _ahead(other, facts, action, held=facts.session.last_activity > horizon)]
    if len(ahead) < limit.max:
        return None
    frees = sorted(other.last_activity for other in ahead)[len(ahead) - limit.max] + limit.window
    ids = tuple(other.id for other in sorted(ahead, key=lambda o: o.rank))
    return Finding(
        code=Code.SESSION_LIMIT,
        subject=_subject(facts),
        limit=limit.max,
        counted=len(ahead) + 1,
        retry_at=frees,
        sessions=ids,
    )


EVICTING = frozenset({Action.EVICT_OLDEST, Action.EVICT_IDLE, Action.EVICT_OTHERS})


def _same(session: SessionFact, other: SessionFact, per: Per) -> bool:
    match per:
        case Per.MEMBER:
            return True
        case Per.DEVICE_CLASS:
            return session.device_class == other.device_class
        case Per.APP:
            return session.app == other.app


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


def _overflow(facts: Facts, limit: SessionLimit, action: Action, active: Sequence[SessionFact]) -> Finding | None:
    """The whole overflow of a login, in the order in which it is ended."""
    surplus = len(active) + 1 - limit.max
    if surplus <= 0:
        return None
    by_idle = sorted(active, key=lambda other: other.idle_rank)
    by_age = sorted(active, key=lambda other: other.rank)
    ends = {Action.EVICT_OLDEST: by_age[:surplus], Action.EVICT_IDLE: by_idle[:surplus]}.get(action, by_age)
    return Finding(
        code=Code.SESSION_LIMIT,
        subject=_subject(facts),
        limit=limit.max,
        counted=len(active) + 1,
        sessions=tuple(other.id for other in by_age),
        evict=tuple(other.id for other in ends),
    )


def _subject(facts: Facts) -> str:
    """The device, which outlives the session that a refused login never gets."""
    return str(facts.device.id) if facts.device else facts.session.id
