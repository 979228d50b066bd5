"""What was blocked when, what the clients said then, and every promise that was broken."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import msgspec

from accessguard.client import Verdict

PROMISED_S: Final = 5.0
"""How long an allow may outlive a block, whatever fails (issue 9)."""
SLACK_S: Final = 0.25
"""What the scheduler of a busy machine may take, beside what it was seen to take."""
REMEMBERED_S: Final = 10.0


@dataclass
class Student:
    """A session and what stands about it; times of the monotonic clock, None where it is not so."""

    member_id: str
    session_id: str
    device_id: str
    blocked: float | None = None
    free: float | None = 0.0


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """A promise that was not kept."""

    promise: str
    client: str
    during: str
    what: str


@dataclass
class Judge:
    """Counts what clients say, and holds them to what they promise."""

    phase: str = "fair"
    breaches: list[Breach] = field(default_factory=list)
    said: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)
    known: dict[str, float] = field(default_factory=dict)
    """When each client last said something that it knew."""
    delays: list[tuple[float, float]] = field(default_factory=list)
    """When this process was how late (s)."""

    def lateness(self) -> float:
        """How late this process was at worst, a moment ago; seconds."""
        since = time.monotonic() - REMEMBERED_S
        self.delays = [each for each in self.delays if each[0] > since]
        return max((late for _, late in self.delays), default=0.0)

    async def watch(self) -> None:
        """Notice how late this process is."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            late = time.monotonic() - before - 0.01
            if late > 0.01:
                self.delays.append((before, late))

    def breach(self, promise: str, client: str, what: str) -> None:
        """Keep what shows that a promise was broken."""
        self.breaches.append(Breach(promise=promise, client=client, during=self.phase, what=what))

    def judge(self, client: str, began: float, deadline_s: float, student: Student, found: Verdict) -> None:
        """Look at one answer: `began` is when it was asked for, `student` was not changed since."""
        ended = time.monotonic()
        took = ended - began
        self.said[client, "unknown" if found.unknown else found.decision.value] += 1
        self.slowest[client] = max(self.slowest.get(client, 0.0), took)
        if took > deadline_s + SLACK_S and took > deadline_s + SLACK_S + 2 * self.lateness():
            self.breach("no hang beyond the deadline", client, f"{took:.3f} s, late {self.lateness():.3f} s")
        if found.unknown:
            return
        self.known[client] = ended
        if found.session_id not in {student.session_id, None}:
            self.breach("no answer is another's", client, f"{student.session_id}: {found}")
        if found.allowed and student.blocked is not None and began > student.blocked + PROMISED_S:
            late = began - student.blocked
            self.breach("no wrong allow beyond 5 s", client, f"{student.member_id}, {late:.3f} s after: {found}")
        if not found.allowed and student.free is not None and began > student.free + PROMISED_S:
            self.breach("nobody is refused without a reason", client, f"{student.member_id}: {found}")
