"""What the hot path counts, as plain numbers; handed to Prometheus when it asks.

A counter of prometheus_client takes a lock and about a microsecond; a held
check would spend a fifth of its time on two of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import Final

from accessguard.guard.model import Verdict
from accessguard.metrics import BEATS, CHECK_BUCKETS, CHECK_SECONDS, DECISIONS, DEGRADED, HTTP, VERDICTS

NONE: Final = "none"


class Tally:
    """Counts since the last report: `plain` are allows from memory, `answers` what the fast lane sent."""

    __slots__ = (
        "_buckets",
        "_degraded",
        "_outcomes",
        "_seconds",
        "answers",
        "early",
        "evaluated",
        "from_memory",
        "loaded",
        "moved",
        "plain",
    )

    def __init__(self) -> None:
        self.from_memory = 0
        self.evaluated = 0
        self.loaded = 0
        self.moved = 0
        self.early = 0
        self.answers = 0
        self._degraded = 0
        self._seconds = 0.0
        self._buckets = [0] * (len(CHECK_BUCKETS) + 1)
        self.plain = 0
        self._outcomes: defaultdict[tuple[str, str], int] = defaultdict(int)

    def took(self, seconds: float) -> None:
        """Note how long a decision took."""
        self._buckets[bisect_left(CHECK_BUCKETS, seconds)] += 1
        self._seconds += seconds

    def held(self, verdict: Verdict) -> None:
        """Count an answer from memory."""
        if verdict.code is None and not verdict.degraded:
            self.plain += 1
        else:
            self.from_memory += 1
            self.made(verdict)

    def made(self, verdict: Verdict) -> None:
        """Count a decision."""
        self._outcomes[verdict.outcome, verdict.code or NONE] += 1
        self._degraded += verdict.degraded

    def report(self) -> None:
        """Add everything to the counters and begin anew."""
        outcomes, self._outcomes = self._outcomes, defaultdict(int)
        outcomes["allow", NONE] += self.plain
        for (outcome, code), times in outcomes.items():
            DECISIONS.labels("check", outcome, code).inc(times)
        DEGRADED.inc(self._degraded)
        for source, times in (
            ("held", self.from_memory + self.plain),
            ("evaluated", self.evaluated),
            ("loaded", self.loaded),
        ):
            VERDICTS.labels(source).inc(times)
        for result, times in (("moved", self.moved), ("early", self.early)):
            BEATS.labels(result).inc(times)
        CHECK_SECONDS.add(self._buckets, self._seconds)
        self._seconds, self._buckets = 0.0, [0] * (len(CHECK_BUCKETS) + 1)
        HTTP.labels("2xx").inc(self.answers)
        self.from_memory = self.answers = self.evaluated = self.loaded = self.moved = self.early = self.plain = (
            self._degraded
        ) = 0
