"""Failed logins: a lock that ends by itself, and that a stranger cannot put on a member's own device (L17)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta

from accessguard.rules.model import Code, Count, Facts, FailureFact, FailurePer, Finding, LoginFailures

CHAIN = 4
"""How many windows and locks back failures are read: where one lock ended decides where the next count begins."""


def too_many_failures(facts: Facts, params: LoginFailures) -> Finding | None:
    """Refuse a login while a lock is on; the `max`th failure within the window puts it on.

    It ends `params.lock` after that failure, whatever is tried meanwhile, and
    what it was put on for never counts again. A device that the member is
    known by counts its own failures alone, so that nobody else's lock it.
    """
    if not facts.failures:
        return None
    until, _ = lock_of((each.at for each in counted_failures(facts, params)), params)
    if until is None or until <= facts.now:
        return None
    return Finding(
        code=Code.LOGIN_FAILURES,
        subject=_subject(facts, params),
        limit=params.max,
        counted=params.max,
        retry_at=until,
        times=(until - params.lock,),
    )


def lock_of(times: Iterable[datetime], params: LoginFailures) -> tuple[datetime | None, int]:
    """The end of the last lock that these failures put on, and how many count towards the next."""
    until: datetime | None = None
    recent: deque[datetime] = deque()
    for at in sorted(times):
        if until is not None and at < until:
            continue
        while recent and recent[0] <= at - params.window:
            recent.popleft()
        recent.append(at)
        if len(recent) == params.max:
            until = at + params.lock
            recent.clear()
    return until, len(recent)


def counted_failures(facts: Facts, params: LoginFailures) -> list[FailureFact]:
    """The failures on the counter that this login is on, as far back as they are looked at."""
    since = facts.now - reach(params)
    device = known_device(facts)
    cleared = None if device is None and params.per is FailurePer.IP else facts.succeeded_at
    if cleared is not None and cleared > since:
        since = cleared
    recent = [each for each in facts.failures if each.at > since]
    if device is not None:
        return [each for each in recent if each.own and str(each.device_id) == device]
    match params.per:
        case FailurePer.MEMBER:
            return [each for each in recent if each.own and each.device_id is None]
        case FailurePer.IP:
            return [each for each in recent if _same_place(each, facts)]
        case FailurePer.DEVICE:
            return [each for each in recent if each.own and each.device_id is None and _same_place(each, facts)]


def count_failures(facts: Facts, params: LoginFailures) -> Count:
    """How many failures count towards a lock now."""
    times = sorted(each.at for each in counted_failures(facts, params))
    horizon = facts.now - params.window
    recent = tuple(at for at in times if at > horizon)
    _, towards = lock_of(times, params)
    return Count(limit=params.max, counted=min(towards, len(recent)), times=recent)


def reach(params: LoginFailures) -> timedelta:
    """How far back failures are looked at; older ones change nothing."""
    return CHAIN * (params.window + params.lock)


def known_device(facts: Facts) -> str | None:
    """The device of the member whose token was shown; None for a stranger's or a new one."""
    return None if facts.device is None or facts.device.new else str(facts.device.id)


def _same_place(failure: FailureFact, facts: Facts) -> bool:
    if failure.address is None or facts.address is None:
        return False
    return failure.address == facts.address or failure.address.place == facts.address.place


def _subject(facts: Facts, params: LoginFailures) -> str:
    device = known_device(facts)
    if device is not None:
        return device
    return "member" if params.per is FailurePer.MEMBER or facts.address is None else facts.address.place
