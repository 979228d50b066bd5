"""Histograms that are kept as plain numbers: all of a worker runs in one thread, so they need no lock."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class BulkHistogram(Collector):
    """A histogram that is added to in bulk, from counts that the hot path keeps as plain numbers."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float]) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = [*(str(float(bound)) for bound in buckets), "+Inf"]
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add how many fell into each bucket (not cumulated, the last beyond all bounds), and their sum."""
        self._counts = [old + new for old, new in zip(self._counts, counts, strict=True)]
        self._sum += total

    def collect(self) -> Iterable[Metric]:
        """The one metric, for the registry."""
        cumulated = [(bound, float(count)) for bound, count in zip(self._bounds, accumulate(self._counts), strict=True)]
        yield HistogramMetricFamily(self._name, self._documentation, buckets=cumulated, sum_value=self._sum)


class Timing:
    """One series of a histogram, to be added to where things happen."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def took(self, seconds: float) -> None:
        """Note how long one took."""
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds

    def took_nothing(self, times: int) -> None:
        """Note so many that were over in microseconds, and which nobody timed."""
        self.counts[0] += times


class Timings(Collector):
    """A histogram with one label, whose series are all made at the start."""

    def __init__(
        self, name: str, documentation: str, label: str, values: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self._name, self._documentation, self._label = name, documentation, label
        self._bounds = [*(str(float(bound)) for bound in bounds), "+Inf"]
        self._series = {value: Timing(bounds) for value in values}

    def __getitem__(self, value: str) -> Timing:
        """The series of a value. Raises KeyError for one that was not named at the start."""
        return self._series[value]

    def collect(self) -> Iterable[Metric]:
        """The one metric, for the registry."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=(self._label,))
        for value, timing in self._series.items():
            counts = zip(self._bounds, accumulate(timing.counts), strict=True)
            family.add_metric((value,), [(bound, float(count)) for bound, count in counts], timing.total)
        yield family
