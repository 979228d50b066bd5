"""The plain values of a benchmark run: what is sent, what is measured, what is reported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec


class Skipped(Exception):  # noqa: N818  (not an error: a scenario this machine or version cannot run)
    """A scenario cannot run here; the message is one sentence that says why."""


class BenchError(Exception):
    """A measure that means nothing: wrong answers, lost connections, a server that died."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the generator.

    `address` is `host:port` (numeric IPv4) or `unix:/path`. `expects` holds, for
    each kind of request in the file, `STATUS:TEXT` or `STATUS*N:TEXT`. `watch`
    are the process ids whose processor time is counted. `rate` is arrivals a
    second, 0 a closed loop. `once` sends every request of the file one time.
    """

    address: str
    requests: Path
    expects: tuple[str, ...]
    watch: tuple[int, ...] = ()
    connections: int = 32
    rate: float = 0
    once: bool = False
    never: str = '"degraded":true'


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of the generator saw; latencies and processor times in microseconds.

    `mismatches` also counts wrong answers of the warm-up. `generator_cpu_us` and
    `server_cpu_us` cover the measured `seconds`.
    """

    generator: str
    requests: int
    seconds: float
    rps: float
    errors: int
    unanswered: int
    mismatches: int
    reconnects: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    server_cpu_us: float
    generator_cpu_us: float
    answers_by_kind: tuple[int, ...]
    mismatches_by_kind: tuple[int, ...]
    sample: str = ""

    @property
    def cpu_us(self) -> float:
        """Processor time of the watched processes per request, in microseconds."""
        return self.server_cpu_us / self.requests if self.requests else 0.0

    @property
    def generator_share(self) -> float:
        """How much of its core the generator used, 0 to 1; close to 1 it is what was measured."""
        return self.generator_cpu_us / 1e6 / self.seconds

    def check(self, name: str) -> Measure:
        """Return itself, or raise BenchError when an answer was wrong, lost or missing."""
        if self.mismatches:
            raise BenchError(f"{name}: {self.mismatches} answers were not what they should be, such as {self.sample}")
        if self.errors or self.unanswered or not self.requests:
            raise BenchError(f"{name}: {self.errors} errors, {self.unanswered} unanswered, {self.requests} answers")
        return self


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Something that takes a load; `decisions` is how many one request asks for.

    With `settle` every request is sent once before a window opens: while other
    targets had their turn, the 30 s of many sessions have passed, and their
    beats would all fall into the first moments.
    """

    name: str
    load: Load
    decisions: int = 1
    settle: bool = False


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """The median of several rounds, with the smallest and the largest."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum and maximum of `values`, of which there is at least one."""
    return Spread(median=median(values), low=min(values), high=max(values))


def ratios(values: Sequence[float], references: Sequence[float]) -> Spread:
    """Spread of each value divided by the reference of the same round."""
    return spread([value / reference for value, reference in zip(values, references, strict=True)])


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report. `floor` and `moonshot` are the goals, None where there is none.

    With `lower_is_better` the goals are upper bounds. `unit` is `x` for a ratio.
    """

    scenario: str
    what: str
    unit: str
    value: Spread
    floor: float | None = None
    moonshot: float | None = None
    lower_is_better: bool = False

    def reaches(self, goal: float) -> bool:
        """Whether the median is at least as good as `goal`."""
        return self.value.median <= goal if self.lower_is_better else self.value.median >= goal


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one scenario ended: its figures, or a sentence that says why there are none.

    `note` is a sentence that a reader of the figures must know.
    """

    scenario: str
    figures: tuple[Figure, ...] = ()
    note: str | None = None
    skipped: str | None = None
    failed: str | None = None
