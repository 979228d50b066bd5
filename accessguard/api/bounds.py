"""How much one caller may ask of one worker: calls a second, and calls at once. Others are not to wait for it.

The rate is a leaky bucket (the "generic cell rate algorithm" of ITU-T I.371):
one number for each caller. Each worker counts for itself, as a connection
stays with one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

from accessguard.api.keys import Caller, Role
from accessguard.errors import ErrorCode, GuardError
from accessguard.metrics import THROTTLED

BURST_S: Final = 10.0
"""For how many seconds' worth of calls that were not made a caller may make up at once."""
MOST_HELD: Final = 10_000
PATIENT: Final = 20
"""Refusals in a row that are answered at once; whoever goes on waits `PENALTY_S` for each."""
PENALTY_S: Final = 0.5

Key: TypeAlias = "tuple[Kind, str, str]"


class Kind(StrEnum):
    """What is counted by itself: checks, the other calls of platforms, those of operators."""

    CHECKS = "checks"
    PLATFORM = "platform"
    OPERATORS = "operators"


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Calls a second of each kind, None for no bound; and `concurrent`, calls of one caller at once."""

    checks: int | None = None
    platform: int | None = None
    operators: int | None = None
    concurrent: int | None = None

    def of(self, kind: Kind) -> int | None:
        """The rate of one kind."""
        match kind:
            case Kind.CHECKS:
                return self.checks
            case Kind.PLATFORM:
                return self.platform
            case Kind.OPERATORS:
                return self.operators


class Bounds:
    """One for each worker; `clock` is a monotonic one (s)."""

    def __init__(self, rates: Rates, *, clock: Callable[[], float]) -> None:
        self.rates = rates
        self._clock = clock
        self._full_at: dict[Key, float] = {}
        self._refused: dict[Key, int] = {}
        self._under_way: dict[tuple[str, str], int] = {}

    def take(self, caller: Caller, *, check: bool) -> None:
        """Count a call. Raises GuardError(THROTTLED), which says when to come again."""
        kind = Kind.CHECKS if check else Kind.PLATFORM if caller.role is Role.PLATFORM else Kind.OPERATORS
        rate = self.rates.of(kind)
        if rate is None:
            return
        key, now = (kind, caller.tenant, caller.subject), self._clock()
        at = max(self._full_at.get(key, now), now)
        wait_s = at + 1 / rate - now - BURST_S
        if wait_s > 0:
            self._refused[key] = self._refused.get(key, 0) + 1
            raise throttled(kind, rate, wait_s)
        if len(self._full_at) >= MOST_HELD and key not in self._full_at:
            self._make_room(now)
        self._full_at[key] = at + 1 / rate
        self._refused.pop(key, None)

    def penalty_s(self, caller: Caller, *, check: bool) -> float:
        """How long a refusal is held back, for a caller that does not stop at the first ones."""
        kind = Kind.CHECKS if check else Kind.PLATFORM if caller.role is Role.PLATFORM else Kind.OPERATORS
        return PENALTY_S if self._refused.get((kind, caller.tenant, caller.subject), 0) > PATIENT else 0.0

    @contextmanager
    def at_once(self, caller: Caller) -> Iterator[None]:
        """While a call is under way. Raises GuardError(THROTTLED) for one too many."""
        most, key = self.rates.concurrent, (caller.tenant, caller.subject)
        count = self._under_way.get(key, 0)
        if most is not None and count >= most:
            THROTTLED.labels("concurrent").inc()
            message = f"More than {most} calls of this caller are under way."
            raise GuardError(ErrorCode.THROTTLED, message, headers={"Retry-After": "1"})
        self._under_way[key] = count + 1
        try:
            yield
        finally:
            left = self._under_way[key] - 1
            if left:
                self._under_way[key] = left
            else:
                del self._under_way[key]

    def _make_room(self, now: float) -> None:
        """Forget whoever has been silent for long enough; if nobody has, everybody begins anew."""
        self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        if len(self._full_at) >= MOST_HELD:
            self._full_at.clear()
        self._refused.clear()


def throttled(kind: Kind, rate: int, wait_s: float) -> GuardError:
    """The refusal of a call too many, with the fields of draft-ietf-httpapi-ratelimit-headers-10."""
    THROTTLED.labels(kind).inc()
    seconds = max(1, math.ceil(wait_s))
    headers = {
        "Retry-After": str(seconds),
        "RateLimit-Policy": f'"{kind}";q={int(rate * BURST_S)};w={int(BURST_S)}',
        "RateLimit": f'"{kind}";r=0;t={seconds}',
    }
    return GuardError(ErrorCode.THROTTLED, f"More than {rate} calls a second.", headers=headers)
