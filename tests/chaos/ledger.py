"""What was asked, what was answered and when: the load writes it, the reckoning holds the service to it."""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

PROMISED_S = 5.0
"""How long a block that was acknowledged may still be missed, whatever fails (issue 6)."""
DEADLINE_MS = 100.0
"""How long a check may take while a store is out (`server.check_deadline_ms`)."""
CALM = "calm"
BLIND = frozenset({"both out", "host cut off"})
"""Faults during which a host can ask neither store: who is blocked it may let in as undecided, then and nowhere else."""
SEES_AFTER_S = 5.0
"""How long after such a fault a host may take until it asks again."""


class Kind(StrEnum):
    """What can be acknowledged."""

    LOGIN = "login"
    DEVICE = "device"
    END = "end"
    VIOLATION = "violation"
    MARK = "mark"
    RULE = "rule"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One acknowledged call: times in seconds since the run began, `tries` with those that were not answered."""

    number: int
    kind: Kind
    during: str
    sent: float
    acknowledged: float
    tries: int
    asked: dict[str, Any]
    answered: dict[str, Any]


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """A promise that was not kept, what shows it, and during what."""

    promise: str
    during: str
    at: float
    what: str
    entry: Entry | None = None


@dataclass
class Block:
    """A device, from when it was known to be blocked until somebody began to let it in again."""

    device_id: str
    member_id: str
    sessions: tuple[str, ...]
    entry: Entry
    lifted: bool = False


@dataclass
class Checked:
    """Checks of one phase; latencies in milliseconds, without what the harness itself was late."""

    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    degraded: int = 0

    @property
    def count(self) -> int:
        """How many were asked."""
        return len(self.latencies) + len(self.errors)

    def quantile(self, share: float) -> float:
        """The latency (ms) that this share of the answers did not exceed; 0 without answers."""
        ranked = sorted(self.latencies)
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0

    def within(self, ms: float) -> float:
        """The share that was answered, and no slower than that."""
        return sum(each <= ms for each in self.latencies) / self.count if self.count else 1.0


class Ledger:
    """All that was acknowledged, and every promise that was broken."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.phase = CALM
        self._blind_until = 0.0
        self.entries: list[Entry] = []
        self.breaches: list[Breach] = []
        self.blocks: dict[str, Block] = {}
        self.blocked_sessions: dict[str, str] = {}
        self.ended: dict[str, Entry] = {}
        self.violations: set[str] = set()
        self.checked: defaultdict[str, Checked] = defaultdict(Checked)
        self.refused: defaultdict[str, int] = defaultdict(int)
        self.undecided: defaultdict[str, int] = defaultdict(int)

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    @contextlib.contextmanager
    def under(self, fault: str) -> Iterator[None]:
        """A fault lasts, with all that it takes to end it."""
        if fault in BLIND:
            self._blind_until = math.inf
        try:
            yield
        finally:
            if fault in BLIND:
                self._blind_until = self.now() + SEES_AFTER_S

    def acknowledge(self, kind: Kind, sent: float, tries: int, asked: dict[str, Any], answered: Any) -> Entry:
        """Keep what the service has promised by its answer."""
        entry = Entry(
            number=len(self.entries) + 1,
            kind=kind,
            during=self.phase,
            sent=round(sent, 3),
            acknowledged=round(self.now(), 3),
            tries=tries,
            asked=asked,
            answered=answered,
        )
        self.entries.append(entry)
        return entry

    def breach(self, promise: str, what: str, entry: Entry | None = None) -> None:
        """Note a broken promise."""
        found = Breach(promise=promise, during=self.phase, at=round(self.now(), 3), what=what, entry=entry)
        self.breaches.append(found)

    def block(self, entry: Entry, sessions: tuple[str, ...]) -> None:
        """A device is known to be blocked."""
        found = Block(entry.asked["device_id"], entry.asked["member_id"], sessions, entry)
        self.blocks[found.device_id] = found
        for each in sessions:
            self.blocked_sessions[each] = found.device_id

    def lift(self, device_id: str) -> None:
        """Somebody begins to let a device in again: from now on either answer is right."""
        found = self.blocks.pop(device_id, None)
        if found is not None:
            found.lifted = True
            for each in found.sessions:
                self.blocked_sessions.pop(each, None)

    def judge(self, session_id: str, sent: float, answer: dict[str, Any]) -> None:
        """Hold one answer to what was acknowledged long enough before it was asked for."""
        if answer["decision"] != "allow":
            return
        block = self.blocks.get(self.blocked_sessions.get(session_id, ""))
        undecided = answer["degraded"] and answer["member_id"] is None and sent < self._blind_until
        if block is not None and not block.lifted and self._late(sent, block.entry) and undecided:
            self.undecided[f"blocked, {self.phase}"] += 1
        elif block is not None and not block.lifted and self._late(sent, block.entry):
            late = self.now() - block.entry.acknowledged
            self.breach(
                "blocked stay out", f"allowed {late:.2f} s after the block (asked at {sent:.3f}): {answer}", block.entry
            )
        ended = self.ended.get(session_id)
        if ended is not None and self._late(sent, ended):
            if undecided:
                self.undecided[f"ended, {self.phase}"] += 1
            else:
                self.breach("ended stay ended", f"allowed, asked at {sent:.3f}: {answer}", ended)

    def _late(self, sent: float, entry: Entry) -> bool:
        return sent > entry.acknowledged + PROMISED_S

    def of(self, kind: Kind) -> list[Entry]:
        """What was acknowledged of one kind, in order."""
        return [each for each in self.entries if each.kind is kind]
