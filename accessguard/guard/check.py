"""May this session go on? From memory when nothing changed; else one beat; else an evaluation (guard/evaluate.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from accessguard.errors import GuardError
from accessguard.guard.deadline import Deadline
from accessguard.guard.evaluate import Evaluation
from accessguard.guard.facts import from_ms
from accessguard.guard.folds import Folds
from accessguard.guard.memory import BEATEN, QUIET, STEADY, Held, Memory, asked_of
from accessguard.guard.model import Check, Verdict
from accessguard.guard.patience import SHARE, Awaited, Beating, Patience
from accessguard.guard.question import beat_of
from accessguard.guard.tally import Tally
from accessguard.policies.book import PolicyBook
from accessguard.sessions.activity import ActivityLog
from accessguard.sessions.live import Live, Ticked
from accessguard.sessions.model import BEAT_MS

EACH_S: Final = 0.002
"""What each check of a batch adds to the deadline of all: 500 misses share ten connections, about a millisecond each."""


class Checks:
    """The hot path. One of these is in every worker."""

    def __init__(
        self,
        *,
        live: Live,
        book: PolicyBook,
        memory: Memory,
        folds: Folds,
        activity: ActivityLog,
        tally: Tally,
        evaluation: Evaluation,
        seconds: Callable[[], float],
        deadline_s: float,
    ) -> None:
        self._live = live
        self._book = book
        self._folds = folds
        self._activity = activity
        self._evaluation = evaluation
        self._seconds = seconds
        self.deadline_s = deadline_s
        self._patience = Patience(SHARE * deadline_s)
        self.memory = memory
        self.tally = tally

    def about(self, tenant: str, asked: Check) -> Held | None:
        """The verdict on exactly this question, whether or not its time is over."""
        room = self.memory.rooms.get(tenant)
        held = room.held.get(asked.session_id) if room is not None else None
        if asked.explain or not self.memory.trusted:
            return None
        if held is None:
            held = self.memory.recall(tenant, asked.session_id)
            if held is None:
                return None
        policy = held.policy
        if policy is not self._book.held(tenant) or held.asked != asked_of(asked, policy):
            return None
        return held

    def peek(self, tenant: str, asked: Check, now_ms: int) -> Held | None:
        """The verdict in memory, when it still holds for exactly this question."""
        return self.peek_all(tenant, (asked,), now_ms)[0]

    def peek_all(self, tenant: str, asked: Sequence[Check], now_ms: int) -> list[Held | None]:
        """The verdict on each question, in the order of asking; what is the same for all is looked up once."""
        room, policy = self.memory.rooms.get(tenant), self._book.held(tenant)
        if room is None or policy is None or not self.memory.trusted:
            return [None] * len(asked)
        find, found = room.held.get, list[Held | None]()
        for each in asked:
            held = find(each.session_id)
            if held is None or each.explain or held.policy is not policy or held.asked != asked_of(each, policy):
                found.append(None)
            else:
                found.append(held if self.stands(held, each, now_ms) else None)
        return found

    def stands(self, held: Held, asked: Check, now_ms: int) -> bool:
        """Whether a verdict on this very question still stands, without asking anybody.

        A steady one whose session only waits goes on by itself.
        """
        if now_ms < held.until:
            return asked.activity is None or held.flags & QUIET != 0
        if asked.activity is not None or not self.goes_on(held, now_ms):
            return False
        held.until = now_ms + BEAT_MS
        held.flags &= ~BEATEN
        held.rest -= 1
        return True

    def goes_on(self, held: Held, now_ms: int) -> bool:
        """Whether a verdict needs its beat and nothing else, to stand for another 30 s."""
        return held.flags & STEADY != 0 and held.rest > 0 and now_ms - held.until < held.policy.gap_ms

    def beat(self, beating: Beating) -> None:
        """Record an interaction of a steady session; `beating` hears whether its verdict stands for another 30 s.

        When Valkey takes too long, it hears in time that it does not. Raises GuardError(UNAVAILABLE) when Valkey is out of reach.
        """
        held, member = beating.held, beating.held.member
        last_ms = held.until - BEAT_MS if held.flags & BEATEN else 0
        times = (beating.now_ms, last_ms, member.open)
        self._live.tick(beating.tenant, member.id, beating.asked.session_id, times, partial(self._heard, beating))
        self._patience.wait(beating)

    def _heard(self, beating: Beating, answer: Any) -> None:
        """Take over what Valkey says of a beat, however late, and tell whether its verdict stands."""
        ticked, before_ms = self._live.ticked(answer)
        held, now_ms, tally = beating.held, beating.now_ms, self.tally
        if ticked is Ticked.MOVED:
            tally.moved += 1
            self._activity.add(beat_of(beating.tenant, held.member.id, beating.asked, now_ms))
            before_ms = now_ms
        elif ticked is Ticked.EARLY:
            tally.early += 1
        going = ticked is not Ticked.UNSURE and self._kept(beating)
        if going:
            held.until = min(before_ms, now_ms) + BEAT_MS  # another worker's clock may be ahead
            held.flags |= BEATEN
            held.rest -= 1
            tally.plain += 1
        beating.settle(going)

    def _kept(self, beating: Beating) -> bool:
        """Whether a verdict that was about the question still is the one in memory."""
        held, tenant = beating.held, beating.tenant
        room = self.memory.rooms.get(tenant)
        there = room is not None and room.held.get(beating.asked.session_id) is held
        return there and self.memory.trusted and held.policy is self._book.held(tenant)

    def answered(self, held: Held, now_ms: int) -> None:
        """Count an answer given from memory; a repeated refusal is one more hit of its cases."""
        other = held.other
        if other is None:
            self.tally.plain += 1
            return
        self.tally.held(other.verdict)
        for found in other.found:
            self._folds.again(held.policy.tenant, msgspec.structs.replace(found, at=from_ms(now_ms)))

    def beating(self, tenant: str, asked: Check, held: Held, now_ms: int) -> asyncio.Future[bool]:
        """The same as `beat`, to be awaited behind a shield; False, too, when Valkey is out of reach."""
        beating = Awaited(tenant, asked, held, now_ms)
        try:
            self.beat(beating)
        except GuardError:
            beating.settle(False)  # noqa: FBT003 - the one thing that is said
        return beating.stands

    async def decide(
        self, tenant: str, asked: Check, now_ms: int, company: int = 1, since: float | None = None
    ) -> Verdict:
        """Decide anew. Raises GuardError(UNAVAILABLE) when not even the tenant's choice is known.

        `company` is how many checks were asked together: each gives all of them a little more time.
        `since` is when the check began that has waited for its beat in vain (the loop's time).
        """
        began = self._seconds()
        deadline = Deadline(self.deadline_s + (company - 1) * EACH_S, entry="check", since=since)
        verdict = await self._evaluation.verdict(tenant, asked, now_ms, deadline)
        self.tally.took(self._seconds() - began)
        self.tally.made(verdict)
        return verdict
