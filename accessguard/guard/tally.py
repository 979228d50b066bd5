"""What the hot path counts, as plain numbers; handed to Prometheus when it asks.

A counter of prometheus_client takes a lock and about a microsecond; a held
check would spend a fifth of its time on two of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import Final

from accessguard.guard.model import Verdict
from accessguard.metrics import (
    BEATS,
    CHECK_BUCKETS,
    CHECK_SECONDS,
    DECISIONS,
    DEGRADED,
    ENTRIES,
    HTTP,
    IN_PROGRESS,
    REQUEST_SECONDS,
    REQUESTS,
    VERDICTS,
)

NONE: Final = "none"


class Tally:
    """Counts since the last report: `plain` are allows from memory, `answers` what the fast lane sent.

    Of its answers `passes` are those to proxies, `batches` those to batches,
    and `timed` those that were waited for and are counted by `end` or `beat`; the others are single checks from memory.
    """

    __slots__ = (
        "_ahead",
        "_buckets",
        "_checks",
        "_degraded",
        "_open",
        "_outcomes",
        "_requests",
        "_seconds",
        "answers",
        "batches",
        "early",
        "evaluated",
        "from_memory",
        "loaded",
        "moved",
        "passes",
        "plain",
        "timed",
    )

    def __init__(self) -> None:
        self.from_memory = 0
        self.evaluated = 0
        self.loaded = 0
        self.moved = 0
        self.early = 0
        self.answers = 0
        self.passes = 0
        self.batches = 0
        self.timed = 0
        self._ahead = 0
        self._open = dict.fromkeys(ENTRIES, 0)
        self._requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._checks = REQUEST_SECONDS["check"]
        self._degraded = 0
        self._seconds = 0.0
        self._buckets = [0] * (len(CHECK_BUCKETS) + 1)
        self.plain = 0
        self._outcomes: defaultdict[tuple[str, str], int] = defaultdict(int)

    def took(self, seconds: float) -> None:
        """Note how long a decision took."""
        self._buckets[bisect_left(CHECK_BUCKETS, seconds)] += 1
        self._seconds += seconds

    def begin(self, entry: str) -> None:
        """Count a request that is being answered."""
        self._open[entry] += 1

    def end(self, entry: str, status: int, seconds: float) -> None:
        """Count that it is over; `status` 0: nobody was there to be answered. What follows a stream lasts as long as it likes."""
        self._open[entry] -= 1
        if status:
            self._requests[entry, status // 100] += 1
        if entry != "stream":
            REQUEST_SECONDS[entry].took(seconds)

    def beat(self, seconds: float) -> None:
        """Count a check of the fast lane that waited for its beat alone."""
        self.timed += 1
        self._requests["check", 2] += 1
        self._checks.took(seconds)

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
        self._report_requests()
        HTTP.labels("2xx").inc(self.answers)
        self.from_memory = self.answers = self.evaluated = self.loaded = self.moved = self.early = self.plain = (
            self._degraded
        ) = 0

    def _report_requests(self) -> None:
        """What came in where; the fast lane counts an answer from memory no further than that there was one."""
        left = self.answers - self.passes - self.batches - self.timed - self._ahead
        self._ahead = max(0, -left)  # counted already, and sent at the end of this turn
        for entry, times in (("check", max(0, left)), ("checks", self.batches), ("gate", self.passes)):
            self._requests[entry, 2] += times
            REQUEST_SECONDS[entry].took_nothing(times)
        for (entry, status), times in self._requests.items():
            REQUESTS.labels(entry, f"{status}xx").inc(times)
        for entry, times in self._open.items():
            IN_PROGRESS.labels(entry).set(times)
        self._requests.clear()
        self.passes = self.batches = self.timed = 0
