"""How much one caller may ask of one worker: calls a second, calls at once, time for each. Others are not to wait for it.

The rate is a leaky bucket (the "generic cell rate algorithm" of ITU-T I.371):
one number for each caller. Each worker counts for itself, as a connection
stays with one of them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from typing import Final, TypeAlias, TypeVar

import msgspec

from accessguard.api.keys import Caller, Role
from accessguard.errors import ErrorCode, GuardError
from accessguard.metrics import LATE, THROTTLED

BURST_S: Final = 10.0
"""For how many seconds' worth of calls that were not made a caller may make up at once."""
MOST_WAIT_S: Final = 2.0
"""How long a call of an operator waits for its turn."""
MOST_HELD: Final = 10_000
PATIENT: Final = 20
"""Refusals, less the calls that were let in since, that are answered at once; whoever goes on waits `PENALTY_S` for each."""
PENALTY_S: Final = 0.5
REFUSALS_PER_S: Final = 100
"""Refusals that leave a worker in a second for one caller that goes on, on however many connections: each costs a third of a millisecond."""
MOST_PENALTY_S: Final = 20.0
STRANGERS_BURST_S: Final = 10.0
"""For how many seconds' worth whoever is at one address may show tokens that are none before they wait."""

PLACES: Final = 4
"""Calls of one operator that are worked on at once, and as many files: the others wait, as what PostgreSQL answers to each is read in one turn."""

HOUR_S: Final = 3_600.0

K = TypeVar("K")
Key: TypeAlias = "tuple[Kind, str, str]"


class Kind(StrEnum):
    """What is counted by itself: checks, the other calls of platforms, those of operators."""

    CHECKS = "checks"
    PLATFORM = "platform"
    OPERATORS = "operators"


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Calls a second of each kind, None for no bound; `concurrent`, calls of one caller at once.

    `attempts` are one member's logins in an hour, `answer_s` is how long an answer may take.
    """

    checks: int | None = None
    platform: int | None = None
    operators: int | None = None
    concurrent: int | None = None
    attempts: int | None = None
    answer_s: float = 60.0

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
        self._refusals: dict[Key | str | None, float] = {}  # by caller, or by the place that strangers come from
        self._members: dict[tuple[str, str, bool], float] = {}
        self._under_way: dict[tuple[str, str], int] = {}
        self._places: dict[tuple[str, str, bool], list[asyncio.Future[None]]] = {}

    def take(self, caller: Caller, *, check: bool) -> float:
        """Count a call: the seconds that it has to wait for its turn. Raises GuardError(THROTTLED), which says when to come again.

        Operators' calls take turns, so that a page or a script that asks for
        much gets it, a little slower; only what would wait for long is refused.
        """
        kind = _kind(caller, check=check)
        rate = self.rates.of(kind)
        if rate is None:
            return 0.0
        key, now = (kind, caller.tenant, caller.subject), self._clock()
        at = max(self._full_at.get(key, now), now)
        wait_s = at + 1 / rate - now - BURST_S
        if wait_s > (MOST_WAIT_S if kind is Kind.OPERATORS else 0):
            self._refused[key] = min(self._refused.get(key, 0) + 1, 2 * PATIENT)
            raise throttled(kind, rate, wait_s)
        if len(self._full_at) >= MOST_HELD and key not in self._full_at:
            self._make_room(now)
        self._full_at[key] = at + 1 / rate
        self._heed(key, rested=at == now)
        return max(0.0, wait_s)

    def _heed(self, key: Key, *, rested: bool) -> None:
        """Forget one refusal for a call that is let in, as who floods is let in at times, too; all of them after a rest."""
        left = 0 if rested else self._refused.get(key, 0) - 1
        if left > 0:
            self._refused[key] = left
        else:
            self._refused.pop(key, None)

    def penalty_s(self, caller: Caller, *, check: bool) -> float:
        """How long a refusal is held back, for a caller that does not stop at the first ones."""
        key = (_kind(caller, check=check), caller.tenant, caller.subject)
        return max(PENALTY_S, self._refusal_s(key, 0.0)) if self._refused.get(key, 0) > PATIENT else 0.0

    def stranger_s(self, peer: str | None) -> float:
        """How long the refusal of a token that is none is held back. Nobody at that address waits for it who has a genuine one."""
        return self._refusal_s(peer, STRANGERS_BURST_S)

    def _refusal_s(self, key: Key | str | None, burst_s: float) -> float:
        """The time until this one's turn, one after the other, after a burst."""
        now = self._clock()
        if len(self._refusals) >= MOST_HELD and key not in self._refusals:
            self._refusals = still_counting(self._refusals, now)
        at = min(max(self._refusals.get(key, now), now), now + burst_s + MOST_PENALTY_S)
        self._refusals[key] = at + 1 / REFUSALS_PER_S
        return max(0.0, at - now - burst_s)

    def attempt(self, tenant: str, member_id: str | None, *, failed: bool) -> None:
        """Count a login of one member; those that fail by themselves, as whoever guesses is to keep nobody out.

        Raises GuardError(THROTTLED).
        """
        rate = self.rates.attempts
        if member_id is None or rate is None:
            return
        key, now = (tenant, member_id, failed), self._clock()
        at, step_s = max(self._members.get(key, now), now), HOUR_S / rate
        if at + step_s - now > HOUR_S:
            raise too_many_attempts(rate, at + step_s - now - HOUR_S)
        if len(self._members) >= MOST_HELD and key not in self._members:
            self._members = still_counting(self._members, now)
        self._members[key] = at + step_s

    @asynccontextmanager
    async def place(self, caller: Caller, *, file: bool = False) -> AsyncIterator[bool]:
        """While a call is worked on: an operator has PLACES of them, and waits for the next one; a platform waits for none.

        Files, which take minutes, have places of their own. Whether it had to wait.
        """
        if caller.role is Role.PLATFORM:
            yield False
            return
        key, loop = (caller.tenant, caller.subject, file), asyncio.get_running_loop()
        line, own = self._places.setdefault(key, []), loop.create_future()
        line.append(own)
        waits = len(line) > PLACES
        try:
            if waits:
                await own
            yield waits
        finally:
            line.remove(own)
            if len(line) >= PLACES and not line[PLACES - 1].done():
                line[PLACES - 1].set_result(None)
            if not line:
                del self._places[key]

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
        self._full_at = still_counting(self._full_at, now)
        self._refused.clear()


def _kind(caller: Caller, *, check: bool) -> Kind:
    if check:
        return Kind.CHECKS
    return Kind.PLATFORM if caller.role is Role.PLATFORM else Kind.OPERATORS


def still_counting(held: dict[K, float], now: float) -> dict[K, float]:
    """Without whoever has been silent for long enough; when that is nobody, everybody begins anew."""
    left = {key: at for key, at in held.items() if at > now}
    return left if len(left) < MOST_HELD else {}


def late(within_s: float) -> GuardError:
    """The refusal of a call that could not be answered in that time."""
    LATE.inc()
    return GuardError(ErrorCode.UNAVAILABLE, f"No answer within {within_s:g} s; try again shortly.")


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


def too_many_attempts(rate: int, wait_s: float) -> GuardError:
    """The refusal of a login too many of one member."""
    THROTTLED.labels("attempts").inc()
    headers = {"Retry-After": str(max(1, math.ceil(wait_s)))}
    return GuardError(ErrorCode.THROTTLED, f"More than {rate} logins of this member in an hour.", headers=headers)
