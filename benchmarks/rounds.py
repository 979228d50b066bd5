"""Interleaved rounds: A B C, A B C, ... so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.bench import Bench
from benchmarks.model import BenchError, Figure, Measure, Target, ratios, spread


class Series:
    """What the rounds saw of one target; `failed` says why it was left out of the rest of them."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.measures: list[Measure] = []
        self.failed: str | None = None

    @property
    def per_second(self) -> list[float]:
        """Decisions a second, round by round."""
        return [measure.rps * self.target.decisions for measure in self.measures]

    @property
    def cpu_us(self) -> list[float]:
        """Processor time per decision in microseconds, round by round."""
        return [measure.cpu_us / self.target.decisions for measure in self.measures]


async def interleave(
    bench: Bench, targets: Sequence[Target], *, rounds: int | None = None, seconds: float | None = None
) -> Mapping[str, Series]:
    """Measure all targets in turn, round after round; stops early, after a whole round, when time runs out."""
    series = {target.name: Series(target) for target in targets}
    for number in range(rounds or bench.settings.rounds):
        if number and bench.left_s < len(targets) * (bench.settings.window_s + bench.settings.warmup_s + 1):
            break
        for one in series.values():
            await _measure(bench, one, seconds)
    return series


async def _measure(bench: Bench, series: Series, seconds: float | None) -> None:
    if series.failed is not None:
        return
    try:
        if series.target.settle:
            await bench.settle(series.target)
        series.measures.append(await bench.measure(series.target, seconds=seconds))
    except BenchError as error:
        series.failed = str(error)


def throughput(
    scenario: str, series: Series, reference: Series, *, floor: float | None = None, moonshot: float | None = None
) -> tuple[Figure, ...]:
    """Decisions a second, as they are and as a multiple of the reference's requests."""
    what = f"decisions a second / {reference.target.name}"
    return (
        Figure(
            scenario=scenario,
            what=what,
            unit="x",
            value=ratios(series.per_second, reference.per_second),
            floor=floor,
            moonshot=moonshot,
        ),
        Figure(scenario=scenario, what="decisions a second", unit="/s", value=spread(series.per_second)),
    )


def processor(
    scenario: str, series: Series, reference: Series, *, floor: float | None = None, moonshot: float | None = None
) -> tuple[Figure, ...]:
    """Processor time per decision, as it is and as a multiple of the reference's per request."""
    value = ratios(series.cpu_us, reference.cpu_us)
    what = f"CPU per decision / {reference.target.name}"
    return (
        Figure(
            scenario=scenario, what=what, unit="x", value=value, floor=floor, moonshot=moonshot, lower_is_better=True
        ),
        Figure(
            scenario=scenario, what="CPU per decision", unit="us", value=spread(series.cpu_us), lower_is_better=True
        ),
    )
