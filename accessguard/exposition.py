"""The metrics of several workers as those of one service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from accessguard.metrics import GREATEST, LEAST

Key = tuple[str, tuple[tuple[str, str], ...]]


class Scrapes(Collector):
    """What workers count, added up; those that are gone go on counting, so that no counter ever falls.

    Counters and histograms are added up, and so are gauges, but for those
    that metrics.py names as GREATEST or LEAST. A gauge goes with its worker.
    """

    def __init__(self) -> None:
        self._gone: dict[str, Metric] = {}
        self._now: dict[str, Metric] = {}

    def bury(self, text: str) -> None:
        """Keep what a worker has counted that is gone, as it said last (Prometheus' text format; empty: nothing)."""
        lasting = (family for family in text_string_to_metric_families(text) if family.type != "gauge")
        self._gone = merged([*self._gone.values(), *lasting])

    def text(self, texts: Iterable[str], *others: CollectorRegistry) -> bytes:
        """The sum of what workers say, and behind it what `others` say, in Prometheus' text format."""
        said = [family for text in texts for family in text_string_to_metric_families(text)]
        self._now = merged([*said, *self._gone.values()])
        registry = CollectorRegistry()
        registry.register(self)
        return b"".join(generate_latest(each) for each in (registry, *others))

    def collect(self) -> Iterator[Metric]:
        """Every family, for the registry."""
        yield from self._now.values()


def merged(families: Iterable[Metric]) -> dict[str, Metric]:
    """Families of one name made one, their samples in the order in which they come first."""
    found: dict[str, tuple[Metric, dict[Key, float]]] = {}
    for family in families:
        known = found.setdefault(family.name, (family, {}))[1]
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            known[key] = _both(family.name, known[key], sample.value) if key in known else sample.value
    return {name: _family(like, samples) for name, (like, samples) in found.items()}


def _both(name: str, one: float, other: float) -> float:
    if name in GREATEST:
        return max(one, other)
    return min(one, other) if name in LEAST else one + other


def _family(like: Metric, samples: dict[Key, float]) -> Metric:
    made = Metric(like.name, like.documentation, like.type)
    made.samples = [Sample(name, dict(labels), value) for (name, labels), value in samples.items()]
    return made
